"""What may the holder of a participant token do?

Join one room as one participant, for as long as it takes to connect (LiveKit itself renews the
token of whoever is connected). No admin, no list, no create, no other room, and no agents in it:
those are dispatched through the API, where somebody watches. Only while Redis is away does a token
carry the agent (`delegated_agents`).
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from livekit.api import AccessToken, RoomAgentDispatch, RoomConfiguration, VideoGrants

from dispatcher.attributes import DELEGATED, DISPATCH_ID, job_attributes
from dispatcher.clients import LiveKitCredentials
from dispatcher.models import PARTICIPANT_TOKEN_TTL_S, NewDispatch
from web.schemas import Accepted, TokenRequest


def unguessable(prefix: str) -> str:
    """A fresh name with 128 random bits."""
    return f"{prefix}{secrets.token_urlsafe(16)}"


def participant_token(
    credentials: LiveKitCredentials,
    request: TokenRequest,
    accepted: Accepted,
    *,
    identity: str,
    agents: RoomConfiguration | None = None,
) -> str:
    """A signed LiveKit token for one participant and one room.

    Its attribute `usher.dispatch_id` lets the holder read that dispatch's status, and tells a page
    the id: LiveKit's SDKs drop every field of the answer that they do not know. `agents` is what
    LiveKit itself dispatches when the holder's joining creates the room.
    """
    token = (
        AccessToken(credentials.api_key, credentials.api_secret)
        .with_identity(identity)
        .with_ttl(timedelta(seconds=PARTICIPANT_TOKEN_TTL_S))
        .with_grants(
            VideoGrants(
                room_join=True,
                room=accepted.room_name,
                can_publish=True,
                can_subscribe=True,
                can_publish_data=True,
            )
        )
        .with_attributes({**request.participant_attributes, DISPATCH_ID: accepted.dispatch_id})
    )
    if agents is not None:
        token = token.with_room_config(agents)
    if request.participant_name:
        token = token.with_name(request.participant_name)
    if request.participant_metadata:
        token = token.with_metadata(request.participant_metadata)
    return token.to_jwt()


def delegated_agents(promised: NewDispatch, *, requested_at_ms: int) -> RoomConfiguration:
    """Has LiveKit dispatch the agent of `promised`; it is not asked for one in an existing room."""
    attributes = job_attributes(
        dispatch_id=promised.dispatch_id,
        generation=1,
        client_id=promised.client_id,
        container=promised.container,
        request_type=DELEGATED,
        requested_at_ms=requested_at_ms,
        traceparent=promised.traceparent,
    )
    agent = RoomAgentDispatch(
        agent_name=promised.agent_name, metadata=promised.agent_metadata, attributes=attributes
    )
    return RoomConfiguration(agents=[agent])
