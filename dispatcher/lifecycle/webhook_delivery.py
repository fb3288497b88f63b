"""Deliver the events of a dispatch to its client's webhook URL.

Events are signed as Standard Webhooks prescribe, and are delivered at least once, always with the
same id. The outbox in the ledger says what is due; the sweeper wakes a delivery, so a Celery
message may be lost, doubled or late.
"""

from __future__ import annotations

import binascii
import json
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from dispatcher.clients.models import Client
from dispatcher.ledger import keys, outbox, reports
from dispatcher.ledger.outbox import DueEvent, Event
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.webhook_http import TIMEOUT_S, NotDelivered

logger = logging.getLogger(__name__)

# A claimed delivery without an outcome is due again after this: its worker has died.
CLAIM_S: Final = 2 * TIMEOUT_S
# Deliveries of one client that a sweep claims at most (in progress: `client_limits.Slots`).
CLAIM_LIMIT: Final = 8
NO_SLOT_S: Final = 5.0
_BACKLOG_MAX: Final = 100

_NUMBERS: Final = frozenset(
    {"generation", "created_at_ms", "deadline_at_ms", "joined_at_ms", "time_to_join_ms"}
)


def wanting(clients: Sequence[Client]) -> list[str]:
    """Return the ids of the clients that have a webhook URL."""
    return [client.client_id for client in clients if client.webhook_url]


async def due(services: Services) -> list[DueEvent]:
    """Claim the events that are due now; a client with many waits its turn."""
    clients = wanting(services.clients.clients)
    if not clients:
        return []
    if await services.ledger.run(reports.backlog(keys.WEBHOOK_QUEUE)) > _BACKLOG_MAX:
        return []
    return await services.ledger.run(outbox.claim(clients, limit=CLAIM_LIMIT, push_s=CLAIM_S))


async def deliver(services: Services, event_id: str, *, good_till_ms: int = 0) -> str:
    """Try to deliver one event, once; return the outcome.

    After `good_till_ms`, by the ledger's clock, the event has been claimed again (0: never).
    """
    event = await services.ledger.run(outbox.read(event_id))
    if event is None:
        return "settled already"
    if good_till_ms and event.read_at_ms > good_till_ms:
        return "left to its next message"
    with services.deliveries.take(event.client_id) as may_go_on:
        if not may_go_on:
            await services.ledger.run(outbox.later(event, due_in_s=_jittered(NO_SLOT_S)))
            return "waits for the client's other events"
        return await _deliver(services, event)


async def _deliver(services: Services, event: Event) -> str:
    try:
        client = _client(services, event)
        content = body(event)
        headers = signed(client.webhook_secret, event.event_id, content, datetime.now(UTC))
        await services.receivers.post(client.webhook_url, content, headers)
    except NotDelivered as error:
        return await _failed(services, event, error)
    await services.ledger.run(outbox.sent(event))
    logger.info("webhook delivered", extra=_log_fields(event))
    return "delivered"


def _client(services: Services, event: Event) -> Client:
    for client in services.clients.clients:
        if client.client_id == event.client_id and client.webhook_url:
            return client
    raise NotDelivered("the client has no webhook_url any more", for_good=True)


async def _failed(services: Services, event: Event, error: NotDelivered) -> str:
    wait_s = wait_after(event.tries + 1, services.settings.webhook_waits_s)
    if wait_s is None or error.for_good:
        await services.ledger.run(outbox.bury(event, error=str(error)))
        logger.error("webhook given up", extra=_log_fields(event, error=str(error)))
        return f"given up: {error}"
    step = outbox.later(event, due_in_s=_jittered(wait_s), error=str(error))
    await services.ledger.run(step)
    logger.warning("webhook not delivered", extra=_log_fields(event, error=str(error)))
    return f"again in {wait_s:.0f} s: {error}"


def _log_fields(event: Event, **more: object) -> dict[str, object]:
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "dispatch_id": event.dispatch_id,
        "client_id": event.client_id,
        "tries": event.tries + 1,
        **more,
    }


def wait_after(tries: int, waits_s: str) -> float | None:
    """Return the seconds until the next try after `tries`; None if that was the last."""
    waits = [float(text) for text in waits_s.split(",")]
    return waits[tries - 1] if tries <= len(waits) else None


def _jittered(wait_s: float) -> float:
    # Deliveries that failed together must not be retried together.
    return wait_s * random.uniform(0.9, 1.1)  # nosec B311  # no secret


def body(event: Event) -> str:
    """Return the JSON to post: the event's type and time, and the record's summary."""
    data: dict[str, Any] = {"dispatch_id": event.dispatch_id}
    summary = dict(event.summary)
    container = summary.pop("agent_container", "") or summary.pop("container", "")
    summary.pop("container", None)
    for name, value in sorted(summary.items()):
        data[name] = int(value) if name in _NUMBERS else value
    if container:
        data["container"] = container
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"type": event.event_type, "timestamp": at, "data": data})


def signed(secrets: str, event_id: str, content: str, now: datetime) -> dict[str, str]:
    """Return Standard Webhooks' headers, with a signature for each of the space-separated secrets.

    Raise `NotDelivered` if there is no secret, or one is not valid.
    """
    try:
        signatures = [
            Webhook(secret).sign(msg_id=event_id, timestamp=now, data=content)
            for secret in secrets.split()
        ]
    except (EmptyWebhookSecretError, binascii.Error, ValueError):
        signatures = []
    if not signatures:
        raise NotDelivered("the client's webhook_secret is not valid", for_good=True)
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
