"""Which client is calling, and may it see this dispatch?"""

from __future__ import annotations

from flask import request
from jwt import PyJWTError
from jwt import decode as decode_jwt
from livekit.api import TokenVerifier

from dispatcher.attributes import DISPATCH_ID
from dispatcher.clients import Client, ClientRegistry
from web.problems import Problem

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="usher"'}


def _bearer() -> str:
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Problem(
            401,
            "Unauthorized",
            "send your API key as: Authorization: Bearer <key>",
            headers=_CHALLENGE,
        )
    return credential.strip()


def _invalid() -> Problem:
    return Problem(401, "Unauthorized", "this API key is not valid", headers=_CHALLENGE)


def authenticate(clients: ClientRegistry) -> Client:
    """The client whose API key the present request carries.

    Raises:
        Problem: 401, no key or nobody's key.
    """
    client = clients.by_key(_bearer())
    if client is None:
        raise _invalid()
    return client


def reader(clients: ClientRegistry, dispatch_id: str) -> Client:
    """The client on whose behalf the present request may read `dispatch_id`, if it is its own.

    Either with the client's API key, or with the participant token that came with this very
    dispatch, so that a browser needs no API key.

    Raises:
        Problem: 401, neither of them.
    """
    credential = _bearer()
    client = clients.by_key(credential) or _by_token(clients, credential, dispatch_id)
    if client is None:
        raise _invalid()
    return client


def _by_token(clients: ClientRegistry, token: str, dispatch_id: str) -> Client | None:
    try:
        issuer = decode_jwt(token, options={"verify_signature": False}).get("iss")
        client = next((c for c in clients.clients if c.livekit.api_key == issuer), None)
        if client is None:
            return None
        verifier = TokenVerifier(client.livekit.api_key, client.livekit.api_secret)
        claims = verifier.verify(token)
    except (PyJWTError, ValueError, TypeError):
        return None
    ours = (claims.attributes or {}).get(DISPATCH_ID) == dispatch_id
    return client if ours and dispatch_id else None
