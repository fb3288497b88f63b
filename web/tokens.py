"""What may the holder of a participant token do?

Join one room as one participant, for as long as it takes to connect (LiveKit itself renews the
token of whoever is connected). No admin, no list, no create, no other room, and no agents in it:
those are dispatched through the API, where somebody watches.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from livekit.api import AccessToken, VideoGrants

from dispatcher.attributes import DISPATCH_ID
from dispatcher.clients import LiveKitCredentials
from web.schemas import Accepted, TokenRequest

TTL = timedelta(minutes=10)


def unguessable(prefix: str) -> str:
    """A fresh name with 128 random bits."""
    return f"{prefix}{secrets.token_urlsafe(16)}"


def participant_token(
    credentials: LiveKitCredentials, request: TokenRequest, accepted: Accepted, *, identity: str
) -> str:
    """A signed LiveKit token for one participant and one room.

    Its attribute `usher.dispatch_id` lets the holder read that dispatch's status, and tells a page
    the id: LiveKit's SDKs drop every field of the answer that they do not know.
    """
    token = (
        AccessToken(credentials.api_key, credentials.api_secret)
        .with_identity(identity)
        .with_ttl(TTL)
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
    if request.participant_name:
        token = token.with_name(request.participant_name)
    if request.participant_metadata:
        token = token.with_metadata(request.participant_metadata)
    return token.to_jwt()
