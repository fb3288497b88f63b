"""The operator's session at the dashboard: a signed cookie, valid for half a day.

Its key is derived from the operator's credential: every process of every host knows it, and a new
password ends all sessions. The server keeps nothing.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

from flask import Response, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from web.auth.operator import operator_credential
from web.contract.problems import Problem

COOKIE: Final = "usher_dashboard"
PATH: Final = "/dashboard"
# From the evening to the morning, or a working day; then the password is asked for again.
SESSION_S: Final = 12 * 3600


@cache
def _serializer(credential: str) -> URLSafeTimedSerializer:
    # Slow to compute: the password must not be found from a cookie by trying passwords.
    key = hashlib.scrypt(credential.encode(), salt=COOKIE.encode(), n=2**14, r=8, p=1)
    return URLSafeTimedSerializer(key, salt=COOKIE, signer_kwargs={"digest_method": hashlib.sha256})


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

    Raises:
        Problem: 403.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        origin = request.headers.get("Origin")
        own = origin is None or origin.partition("://")[2] == request.host
    if not own:
        raise Problem(403, "this form was sent from another site; use Usher's own")
