"""The view that receives LiveKit's webhooks.

An event is signed by the client's own LiveKit key, with the hash of the body, and is neither old
nor a replay. It is only a hint (`dispatcher/ledger/webhook_hints.py`).
"""

from __future__ import annotations

import base64
import time
from hashlib import sha256
from typing import Final

from flask import Blueprint, request
from google.protobuf.json_format import Parse, ParseError
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.webhook import WebhookEvent

from dispatcher.clients.models import Client
from dispatcher.domain.job_attributes import DISPATCH_ID
from dispatcher.ledger import webhook_hints
from dispatcher.ledger.keys import is_dispatch_id
from dispatcher.ledger.webhook_hints import MAX_AGE_S, Hint, News, Taken
from web.auth.api_keys import signers
from web.contract.problems import Problem
from web.server import slow_callers
from web.services import services

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks")

# A room and a participant, each with 64,000 bytes of metadata, every byte escaped.
MAX_BODY_BYTES: Final = 800_000
_MAX_ID: Final = 128
# LiveKit's clock may be a little ahead of ours.
_AHEAD_S: Final = 60

_LEFT: Final = frozenset({"participant_left", "participant_connection_aborted", "room_finished"})


def senders(token: str, body: bytes) -> list[Client]:
    """Return the client whose LiveKit key has signed `body`; several where they share a key."""
    digest = base64.b64encode(sha256(body).digest()).decode()
    found = [client for client, claims in signers(token) if claims.sha256 == digest]
    if not found:
        raise Problem(
            401,
            "this is not signed by the LiveKit key of any client, or the body is not the signed "
            "one",
        )
    return found


def parse(body: bytes) -> WebhookEvent:
    """Parse the event; one older than five minutes is refused."""
    try:
        event: WebhookEvent = Parse(body.decode(), WebhookEvent(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError):
        raise Problem(400, "the body is no webhook event of LiveKit's") from None
    if not 0 < len(event.id) <= _MAX_ID:
        raise Problem(400, "the event has no id")
    if not -_AHEAD_S <= time.time() - event.created_at <= MAX_AGE_S:
        raise Problem(400, "the event is too old, or the clocks do not agree")
    return event


def hint_of(event: WebhookEvent, client: Client) -> Hint:
    """Make the hint that an event is for the ledger."""
    is_agent = event.participant.kind == ParticipantInfo.AGENT
    news = News.NOTHING
    if event.event == "participant_joined" and is_agent:
        news = News.JOINED
    elif event.event in _LEFT:
        news = News.LEFT
    ours = event.participant.attributes.get(DISPATCH_ID, "") if is_agent else ""
    return Hint(
        event_id=event.id,
        event=event.event,
        news=news,
        client_id=client.client_id,
        room_name=event.room.name,
        dispatch_id=ours if is_dispatch_id(ours) else "",
    )


@blueprint.post("/livekit")
def livekit_webhook() -> tuple[str, int]:
    """Receive an event: 204; 401 not from LiveKit, 400 too old, 409 received before."""
    here = services()
    request.max_content_length = MAX_BODY_BYTES
    # LiveKit sends the token by itself, without a scheme.
    token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    body = slow_callers.whole_body()
    clients = senders(token, body)
    event = parse(body)
    found = [(hint_of(event, client), client.agent_names) for client in clients]
    # An event without news is not kept: most of what LiveKit sends about a busy room.
    taken = {here.ledger.run(webhook_hints.take(hint, names)) for hint, names in found if hint.news}
    if taken == {Taken.REPLAYED}:
        raise Problem(409, "this event has been received before")
    return "", 204
