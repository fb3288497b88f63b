"""Parse `REDIS_URL`, and translate it for redis-py, Celery and Flower.

One Redis: `redis://` or `rediss://`. A Redis named by Sentinel: `redis+sentinel://` or, with TLS,
`rediss+sentinel://`, with the Sentinels in place of the host and its service name in `?service=`.

redis-py has no URLs for Sentinel, and Celery wants one for each Sentinel. Celery's result backend
reads some TLS options of a URL, and Flower none: both get URLs without them, and these as values.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SENTINEL_PORT: Final = 26379

_PLAIN: Final = ("redis", "rediss")
_BY_SENTINEL: Final = ("redis+sentinel", "rediss+sentinel")
_CERT_REQS: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# redis-py's options that are allowed in a URL.
_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _CERT_REQS.__getitem__,
    "ssl_check_hostname": lambda text: _BOOLEANS[text.lower()],
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
}
_SENTINEL_OPTIONS: Final = ("service", "sentinel_username", "sentinel_password")


@dataclass(frozen=True, kw_only=True)
class BySentinel:
    """A Redis named by Sentinels; user and password are those of Redis, not of the Sentinels."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str
    password: str = field(repr=False)
    sentinel_username: str
    sentinel_password: str = field(repr=False)
    tls: dict[str, Any] | None  # None: no TLS

    def celery_url(self) -> str:
        """Return the URL for kombu and Celery's result backend: one part for each Sentinel."""
        user = quote(self.username, safe="")
        who = f"{user}:{quote(self.password, safe='')}@" if self.username or self.password else ""
        return ";".join(f"sentinel://{who}{_bracketed(*each)}/{self.db}" for each in self.hosts)


def _bracketed(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _value(name: str, text: str) -> Any:
    try:
        return _OPTIONS[name](text)
    except KeyError:
        if name in _OPTIONS:
            raise ValueError(f"{name} has a value that it cannot have") from None
        raise ValueError(f"{name} is none of {', '.join(_OPTIONS)}") from None


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must be a valid URL") from None
    if parts.scheme not in (*_PLAIN, *_BY_SENTINEL):
        raise ValueError(
            "must begin with redis:// or, for TLS, rediss://; with Sentinel with "
            "redis+sentinel:// or, for TLS, rediss+sentinel://"
        )
    return parts


def _tls(scheme: str, query: list[tuple[str, str]]) -> dict[str, Any] | None:
    tls = {name: _value(name, text) for name, text in query if name.startswith("ssl_")}
    if scheme.startswith("rediss"):
        return {"ssl_cert_reqs": ssl.CERT_REQUIRED} | tls
    if tls:
        raise ValueError(
            f"has TLS options but begins with {scheme}://; "
            f"TLS is {scheme.replace('redis', 'rediss')}://"
        )
    return None


def without_tls_options(url: str) -> tuple[str, dict[str, Any] | None]:
    """Return the URL of one Redis without its TLS options, and these as values (None: no TLS).

    Raises like `check`.
    """
    parts = _split(url)
    query = parse_qsl(parts.query)
    tls = _tls(parts.scheme, query)
    if tls is None:
        return url, None
    rest = urlencode([(name, text) for name, text in query if name not in _OPTIONS])
    return parts._replace(query=rest).geturl(), tls


def by_sentinel(url: str) -> BySentinel | None:
    """Return the Sentinels of `url`; None where it names one Redis itself. Raises like `check`."""
    parts = _split(url)
    if parts.scheme in _PLAIN:
        return None
    query = parse_qsl(parts.query)
    tls = _tls(parts.scheme, query)
    options = {name: text for name, text in query if not name.startswith("ssl_")}
    if unknown := options.keys() - set(_SENTINEL_OPTIONS):
        raise ValueError(
            f"{', '.join(sorted(unknown))}: is none of {', '.join((*_SENTINEL_OPTIONS, *_OPTIONS))}"
        )
    if not options.get("service"):
        raise ValueError("must end with ?service=<name>: what the Sentinels call this Redis")
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    return BySentinel(
        hosts=tuple(_host(each) for each in hosts.split(",")),
        service=options["service"],
        db=_db(parts.path),
        username=unquote(username),
        password=unquote(password),
        sentinel_username=options.get("sentinel_username", ""),
        sentinel_password=options.get("sentinel_password", ""),
        tls=tls,
    )


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("must name each Sentinel as host or host:port, with commas between them")
    return host, SENTINEL_PORT if port is None else port


def _db(path: str) -> int:
    digits = path.removeprefix("/") or "0"
    if not digits.isdecimal():
        raise ValueError("must have a number, or nothing, for the database after the Sentinels")
    return int(digits)


def check(url: str) -> None:
    """Raise a `ValueError`, whose text does not contain `url`, if that cannot be a Redis URL."""
    if by_sentinel(url) is None:
        without_tls_options(url)


def address(url: str) -> str:
    """Return the address of Redis for people: no user, no password, no options."""
    sentinels = by_sentinel(url)
    if sentinels is not None:
        hosts = ", ".join(_bracketed(*each) for each in sentinels.hosts)
        return f"{sentinels.service} of the Sentinels {hosts}"
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
