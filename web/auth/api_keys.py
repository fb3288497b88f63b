"""Authentication of clients by API key or participant token, and what each of them permits.

A secret key opens all of the client's API. A publishable key is public, in browsers: it may ask for
a session, from a page of the client's, with an identity that Usher chooses. A participant token may
read its own dispatch.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any, Final

from flask import g, request
from jwt import PyJWTError
from jwt import decode as decode_jwt
from livekit.api import TokenVerifier
from livekit.api.access_token import Claims

from dispatcher.clients.models import ApiKey, Client, KeyKind
from dispatcher.domain.job_attributes import DISPATCH_ID
from dispatcher.domain.models import Limits
from dispatcher.errors import UnreadableRecord
from dispatcher.ledger import dispatches
from web.contract.problems import Problem, too_many
from web.contract.request_schemas import TokenRequest
from web.services import services

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="usher"'}

# A caller that knows the name of a room can ask to be let in. A backend decides for which people it
# asks; with a publishable key any browser asks, so the name must be hard to guess.
MIN_PUBLIC_ROOM_CHARS: Final = 16
_OURS_TO_CHOOSE: Final = (
    "participant_identity",
    "participant_metadata",
    "participant_attributes",
)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The sender of the present request; `key` is None for the holder of a participant token."""

    client: Client
    key: ApiKey | None

    @property
    def public(self) -> bool:
        """True with a publishable key."""
        return self.key is not None and self.key.kind is KeyKind.PUBLISHABLE

    @property
    def limits(self) -> Limits:
        """Its client's limits, or less with a publishable key."""
        return self.client.limits.of_publishable_keys() if self.public else self.client.limits


def caller() -> Caller | None:
    """Return the sender of the present request, once that is known."""
    found: Caller | None = g.get("usher_caller")
    return found


def _bearer() -> str:
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        detail = "send your API key as: Authorization: Bearer <key>"
        raise Problem(401, detail, headers=_CHALLENGE)
    return credential.strip()


def _why_invalid(credential: str, *, reading: bool) -> str:
    """Say what is wrong with a credential that is no API key of ours.

    With `reading` a participant token of the dispatch would have been enough.
    """
    claims = unverified(credential)
    if "video" not in claims:
        return "this API key is not valid"
    if not reading:
        return (
            "this is a participant token, not an API key: all it can do here is to read its own "
            "dispatch (GET the status_url and events_url that came with it); send an API key"
        )
    expires_at = claims.get("exp")
    if isinstance(expires_at, (int, float)) and expires_at < time.time():
        return (
            "this participant token has expired; ask for the session again for a fresh one, or "
            "send an API key"
        )
    return (
        "this participant token did not come with this dispatch: it reads only the one whose "
        "status_url came with it; send that one's token, or an API key"
    )


def _admit(client: Client, key: ApiKey | None) -> Caller:
    """Note the caller and the use of its key; refuse a disabled client."""
    g.usher_caller = who = Caller(client=client, key=key)
    if client.disabled:
        raise Problem(403, f"client {client.client_id!r} is disabled")
    if key is not None:
        services().key_uses.note(client.client_id, key.key_id)
    return who


def authenticate(*, publishable: bool = False, reading: bool = False) -> Caller:
    """Return the sender of the present request, by its API key.

    Args:
        publishable: a publishable key is enough, from one of the client's own pages.
        reading: a participant token would have been enough, but this is not the right one.

    Raises:
        Problem: 401, no key or an unknown one; 429, too many wrong ones; 403, not with this key.
    """
    credential = _bearer()
    found = services().clients.by_key(credential)
    if found is None:
        if wait_s := services().wrong_keys.one_more(request.remote_addr or ""):
            raise too_many("too many wrong keys from your address", retry_after_s=wait_s)
        raise Problem(401, _why_invalid(credential, reading=reading), headers=_CHALLENGE)
    who = _admit(*found)
    if who.public:
        if not publishable:
            raise Problem(403, "a publishable key may only ask for a session; use a secret key")
        if request.headers.get("Origin", "") not in who.client.origins:
            raise Problem(
                403,
                "a publishable key works only from a page of yours: the Origin of this request is "
                "not among the client's origins",
            )
    return who


def permitted(who: Caller, wanted: TokenRequest) -> TokenRequest:
    """Return `wanted`; a 403 with a publishable key for what a browser may not choose."""
    if not who.public:
        return wanted
    chosen = [name for name in _OURS_TO_CHOOSE if getattr(wanted, name)]
    if chosen:
        raise Problem(403, f"with a publishable key you may not choose {', '.join(chosen)}")
    if wanted.room_name and len(wanted.room_name) < MIN_PUBLIC_ROOM_CHARS:
        raise Problem(
            403,
            "with a publishable key a room_name has at least "
            f"{MIN_PUBLIC_ROOM_CHARS} characters that nobody can guess (crypto.randomUUID()): "
            "whoever knows it can enter; leave it out to get one",
        )
    return wanted


def reader(dispatch_id: str) -> Client:
    """Return the client on behalf of which the present request may read `dispatch_id`, if its own.

    The request carries the client's secret key, or the participant token that came with this
    dispatch, so that a browser needs no API key.

    Raises:
        Problem: 401, neither of them; 429, too many wrong ones; 403, a publishable key.
        LedgerUnavailable: two clients share a LiveKit key, and Redis cannot tell the dispatch's.
    """
    client = _by_token(_bearer(), dispatch_id)
    who = authenticate(reading=True) if client is None else _admit(client, None)
    return who.client


def unverified(token: str) -> dict[str, Any]:
    """Return a token's claims without a look at its signature; empty where it is no token."""
    try:
        claims: dict[str, Any] = decode_jwt(token, options={"verify_signature": False})
    except (PyJWTError, ValueError, TypeError):
        return {}
    return claims


def signers(token: str) -> list[tuple[Client, Claims]]:
    """Return each client whose LiveKit key has signed `token`, with its claims."""
    issuer = unverified(token).get("iss")
    found = []
    for client in services().clients.clients:
        if client.livekit.api_key == issuer:
            verifier = TokenVerifier(client.livekit.api_key, client.livekit.api_secret)
            # A signed token that is not of LiveKit's format may hold any JSON.
            with contextlib.suppress(PyJWTError, ValueError, TypeError, AttributeError):
                found.append((client, verifier.verify(token)))
    return found


def _by_token(token: str, dispatch_id: str) -> Client | None:
    """Return the client with whose LiveKit key the token of that dispatch is signed, if any."""
    owners = [
        client
        for client, claims in signers(token)
        if isinstance(claims.attributes, dict) and claims.attributes.get(DISPATCH_ID) == dispatch_id
    ]
    if len(owners) < 2:
        return owners[0] if owners else None
    try:
        dispatch = services().ledger.run(dispatches.read(dispatch_id))
        owner = dispatch.client_id if dispatch else ""
    except UnreadableRecord as error:
        owner = error.client_id
    return next((client for client in owners if client.client_id == owner), owners[0])
