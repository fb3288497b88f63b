"""Report this worker process to Redis every two seconds.

`GET /readyz` and `dispatch doctor` read the reports. The sweeper reports itself at each sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from typing import Final

from dispatcher.clients.models import Client
from dispatcher.clients.worker_settings import WorkerSettings, services_of
from dispatcher.errors import LedgerUnavailable, LiveKitError
from dispatcher.ledger import celery_messages, client_servers, outbox, reports
from dispatcher.ledger.guarding import Work
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.webhook_delivery import wanting
from dispatcher.observability.liveness import AliveFile, Pulse
from dispatcher.worker.message_templates import templates

PERIOD_S: Final = 2.0


async def beat(services: Services, queues: Iterable[str], pulse: Pulse | None = None) -> None:
    """Report to Redis, and to probes by the liveness file; never returns.

    `pulse` is that of the consumer, which may hang while this loop does not.
    """
    file = AliveFile(services.common.alive_file)
    queues = tuple(queues)
    starts = True
    while True:
        if pulse is None or not pulse.quiet:
            file.touch()
        try:
            async with services.guard.one(Work.HEARTBEAT):
                # At the start replace what another release of Celery may have written; later write
                # only where there is nothing, because Redis has been emptied.
                await services.ledger.run(celery_messages.keep(templates(), replace=starts))
                starts = False
                for queue in queues:
                    await services.ledger.run(reports.report_alive(reports.worker_part(queue)))
                await services.ledger.run(reports.report_worker(_settings(services, queues)))
                # The ledger's steps learn here which clients want events.
                await services.ledger.run(outbox.want_events(wanting(services.clients.clients)))
                # Agent servers learn here which clients use the LiveKit that they registered with.
                await services.ledger.run(client_servers.tell(services.clients.clients))
        except LedgerUnavailable:
            file.touch()  # without Redis no consumer has a pulse
        # Concurrently: a LiveKit that hangs would make the others look silent.
        await asyncio.gather(*(_probe(services, client) for client in services.clients.clients))
        await asyncio.sleep(PERIOD_S)


def _settings(services: Services, queues: tuple[str, ...]) -> WorkerSettings:
    return WorkerSettings(
        worker=f"{socket.gethostname()}-{os.getpid()}",
        queues=queues,
        services=services_of(services.clients.clients),
        unfenced=tuple(sorted(services.settings.unfenced_names)),
    )


async def _probe(services: Services, client: Client) -> None:
    """Report that a client's LiveKit server answers; the answer also closes its circuit."""
    with contextlib.suppress(LedgerUnavailable):
        async with services.guard.one(Work.LIVEKIT_PROBE, of=client.client_id):
            with contextlib.suppress(LiveKitError):
                await services.livekit_clients.for_credentials(client.livekit).probe()
                name = reports.livekit_part(client.client_id)
                await services.ledger.run(reports.report_alive(name))
