"""Authentication of the operator: by a password, and at the dashboard by a session.

One credential, `USHER_OPERATOR_AUTH=<user>:<password>`, opens what shows every client's sessions:
the metrics, the dashboard, the names in `/readyz`. With `USHER_METRICS_LOCAL` a caller on the
machine itself may read the metrics without it (`docs/decisions/0124-metrics-trust-no-address.md`).

The session is a signed cookie, whose key is derived from the credential: a new password ends all
sessions (`docs/decisions/0092-dashboard-session-cookie.md`).
"""

from __future__ import annotations

import hmac
import ipaddress
from functools import cache
from hashlib import scrypt, sha256
from typing import Final

from flask import Response, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from web.contract.problems import Problem, too_many
from web.services import services

COOKIE: Final = "usher_dashboard"
PATH: Final = "/dashboard"
# From the evening to the morning, or a working day; then the password is asked for again.
SESSION_S: Final = 12 * 3600
_REALM: Final = 'Basic realm="usher operator", charset="UTF-8"'
# Headers that a proxy adds: then the connection is the proxy's, not the caller's.
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def is_on_this_machine() -> bool:
    """Return true when the present request comes from this machine, to a loopback address.

    A proxy on this machine that adds no header is not recognized. The check of the address keeps
    out a page in a local browser that has its own name resolve to us (DNS rebinding).
    """
    if any(name in request.headers for name in _FORWARDED):
        return False
    host = request.host.rsplit(":", 1)[0].strip("[]")
    return _is_loopback(request.remote_addr or "") and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    # An IPv4 caller at an IPv6 socket is ::ffff:127.0.0.1.
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def operator_credential() -> str:
    """Return the operator's `<user>:<password>`; empty when none is set."""
    return services().settings.operator_auth.get_secret_value()


def check_password(user: str, password: str) -> tuple[bool, int]:
    """Return whether that is the operator's credential, and the seconds to wait (0: none).

    After too many wrong ones none from that address is judged for a while, right or wrong.
    """
    # Digests, which are of one length: the time of a comparison tells nothing of the credential.
    sent = sha256(f"{user}:{password}".encode()).digest()
    known = sha256(operator_credential().encode()).digest()
    right = hmac.compare_digest(sent, known)
    wait_s = services().wrong_passwords.attempt(request.remote_addr or "", right=right)
    return right and not wait_s, wait_s


def _check_credential(user: str, password: str) -> None:
    right, wait_s = check_password(user, password)
    if wait_s:
        raise too_many("too many wrong passwords from your address", retry_after_s=wait_s)
    if not right:
        raise _unauthorized("that is not the operator's user and password")


def shows_credential() -> bool:
    """Return true for the operator's credential by basic authentication, false without any.

    Raises:
        Problem: 401, a wrong one; 429, too many wrong ones.
    """
    sent = request.authorization
    if sent is None or sent.type != "basic" or not operator_credential():
        return False
    _check_credential(sent.username or "", sent.password or "")
    return True


def require_operator() -> None:
    """Check that the request carries the credential, or the password alone as a bearer token.

    Raises:
        Problem: 401, none, or a wrong one; 429, too many wrong ones.
    """
    user, _, _ = operator_credential().partition(":")
    if not user:
        raise _unauthorized(
            "nobody may look at this yet: set USHER_OPERATOR_AUTH=<user>:<password> (a password of "
            "16 characters or more) for the web process, and restart it"
        )
    if shows_credential():
        return
    scheme, _, password = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not password.strip():
        raise _unauthorized(
            "send the operator's credential, the one in USHER_OPERATOR_AUTH, by basic "
            "authentication or its password as a bearer token"
        )
    _check_credential(user, password.strip())


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": _REALM})


@cache
def _serializer(credential: str) -> URLSafeTimedSerializer:
    # Slow to compute: the password must not be found from a cookie by trying passwords.
    key = scrypt(credential.encode(), salt=COOKIE.encode(), n=2**14, r=8, p=1)
    return URLSafeTimedSerializer(key, salt=COOKIE, signer_kwargs={"digest_method": sha256})


def signed_in() -> bool:
    """Return true when the present request carries a valid session."""
    credential = operator_credential()
    if not credential:
        return False
    try:
        _serializer(credential).loads(request.cookies.get(COOKIE, ""), max_age=SESSION_S)
    except BadSignature:
        return False
    return True


def sign_in(answer: Response) -> None:
    """Set the session's cookie in `answer`."""
    answer.set_cookie(
        COOKIE,
        _serializer(operator_credential()).dumps("operator"),
        max_age=SESSION_S,
        path=_path(),
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )


def _path() -> str:
    return f"{request.root_path}{PATH}"


def sign_out(answer: Response) -> None:
    """Delete the session's cookie in `answer`."""
    answer.delete_cookie(
        COOKIE, path=_path(), secure=request.is_secure, httponly=True, samesite="Strict"
    )


def check_own_form() -> None:
    """Refuse a form that another site's page has had a browser send (CSRF).

    Browsers say where a request comes from: by `Sec-Fetch-Site` to https and to loopback, by
    `Origin` with every POST. A caller that sends neither is no browser, and has no user's cookie.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        origin = request.headers.get("Origin")
        own = origin is None or origin.partition("://")[2] == request.host
    if not own:
        raise Problem(403, "this form was sent from another site; use Usher's own")
