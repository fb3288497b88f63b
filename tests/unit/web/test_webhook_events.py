"""Does LiveKit send what means something to Usher, and nothing else?"""

from __future__ import annotations

import re

from livekit.protocol.models import ParticipantInfo, Room
from livekit.protocol.webhook import WebhookEvent

from devstack import PROJECT_ROOT
from devstack.servers import WEBHOOK_EVENTS
from dispatcher.clients.models import Client, LiveKitCredentials
from dispatcher.ledger.webhook_hints import News
from web.api.livekit_webhooks import hint_of

# All that livekit/protocol 1.50 knows (webhook/notifier.go).
ALL = (
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "track_published",
    "track_unpublished",
    "egress_started",
    "egress_updated",
    "egress_ended",
    "ingress_started",
    "ingress_ended",
)
CLIENT = Client(
    client_id="acme",
    livekit=LiveKitCredentials(url="", api_key="", api_secret=""),
    agent_names=("agent",),
    container="",
    deadline_s=20,
)


def means_something(name: str) -> bool:
    """Of an agent, at least."""
    agent = ParticipantInfo(kind=ParticipantInfo.AGENT)
    event = WebhookEvent(event=name, id="EV_1", room=Room(name="room-1"), participant=agent)
    return hint_of(event, CLIENT).news is not News.NOTHING


def test_the_dev_stack_is_sent_those_and_no_others() -> None:
    assert {name for name in ALL if means_something(name)} == set(WEBHOOK_EVENTS)


def test_the_documented_filter_is_the_same() -> None:
    page = (PROJECT_ROOT / "docs" / "webhooks.md").read_text()
    [listed] = re.findall(r"include_events: \[(.*)\]", page)
    assert listed.split(", ") == [*WEBHOOK_EVENTS]
