"""How is Redis reached, in the clear or by TLS, by those who read `REDIS_URL` differently?

redis-py takes the TLS options out of the URL's query, Celery's result backend some of them, as
text, and Flower none. So Celery and Flower get a URL without them and the options as values.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

_CERT_REQS: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


def _boolean(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return values[text.lower()]


# Those of redis-py that are of use in a URL.
_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _CERT_REQS.__getitem__,
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
}


def _value(name: str, text: str) -> Any:
    try:
        return _OPTIONS[name](text)
    except KeyError:
        if name in _OPTIONS:
            raise ValueError(f"{name} has a value that it cannot have") from None
        raise ValueError(f"{name} is none of {', '.join(_OPTIONS)}") from None


def without_tls_options(url: str) -> tuple[str, dict[str, Any] | None]:
    """The URL without its TLS options, and these as values; None when it asks for no TLS.

    Raises:
        ValueError: it cannot be Redis's; the message does not repeat it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("must begin with redis:// or, for TLS, rediss://")
    query = parse_qsl(parts.query)
    tls = {name: _value(name, text) for name, text in query if name.startswith("ssl_")}
    if parts.scheme == "redis":
        if tls:
            raise ValueError("has TLS options but begins with redis://; TLS is rediss://")
        return url, None
    rest = urlencode([(name, text) for name, text in query if name not in tls])
    return parts._replace(query=rest).geturl(), {"ssl_cert_reqs": ssl.CERT_REQUIRED} | tls
