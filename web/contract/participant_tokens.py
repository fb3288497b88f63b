"""Participant tokens, and the grants that they carry.

The holder may join one room as one participant, and has ten minutes to connect (LiveKit itself
renews the token of a connected participant). No admin, no list, no create, no other room, and no
agents: those are dispatched through the API, where the verification watches. Only while Redis is
away does a token carry the agent (`delegated_agents`).
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from livekit.api import RoomAgentDispatch, RoomConfiguration

from dispatcher.clients.models import LiveKitCredentials
from dispatcher.domain.job_attributes import DELEGATED, DISPATCH_ID, job_attributes
from dispatcher.domain.models import PARTICIPANT_TOKEN_TTL_S, NewDispatch
from dispatcher.livekit.jwt import signed
from web.contract.request_schemas import TokenRequest

_MAY: Final = dict.fromkeys(("roomJoin", "canPublish", "canSubscribe", "canPublishData"), True)


def unguessable(prefix: str) -> str:
    """Return a fresh name with 128 random bits."""
    return f"{prefix}{secrets.token_urlsafe(16)}"


def participant_token(
    credentials: LiveKitCredentials,
    request: TokenRequest,
    *,
    dispatch_id: str,
    room_name: str,
    identity: str,
    agents: RoomConfiguration | None = None,
) -> str:
    """Sign a LiveKit token for one participant and one room.

    It has the claims of LiveKit's `AccessToken`, which a test compares; that class takes a tenth of
    a whole request. The attribute `usher.dispatch_id` lets the holder read that dispatch, and gives
    a page the id: LiveKit's SDKs drop every field of the answer that they do not know. `agents` is
    what LiveKit itself dispatches when the holder's joining creates the room.
    """
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": credentials.api_key,
        "sub": identity,
        "nbf": now,
        "exp": now + PARTICIPANT_TOKEN_TTL_S,
        "video": {"room": room_name, **_MAY},
        "attributes": {**request.participant_attributes, DISPATCH_ID: dispatch_id},
    }
    if request.participant_name:
        claims["name"] = request.participant_name
    if request.participant_metadata:
        claims["metadata"] = request.participant_metadata
    if agents is not None:
        claims["roomConfig"] = MessageToDict(agents)
    return signed(claims, credentials.api_secret)


def delegated_agents(promised: NewDispatch, *, requested_at_ms: int) -> RoomConfiguration:
    """Make the room configuration by which LiveKit dispatches the agent when it creates the room.

    LiveKit does not read it for a room that exists.
    """
    attributes = job_attributes(promised, request_type=DELEGATED, requested_at_ms=requested_at_ms)
    agent = RoomAgentDispatch(
        agent_name=promised.agent_name,
        deployment=promised.deployment,
        metadata=promised.agent_metadata,
        attributes=attributes,
    )
    return RoomConfiguration(agents=[agent])
