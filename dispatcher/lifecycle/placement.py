"""Give a dispatch's job to an agent server, without LiveKit's own dispatch (`USHER_PLACEMENT`).

LiveKit only has the room created. Where no agent server takes jobs so, LiveKit is asked as ever.
Why: docs/decisions/0139-direct-placement.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dispatcher.domain.agent_servers import candidates
from dispatcher.domain.models import DIRECT, Dispatch, State
from dispatcher.domain.state_machine import DISPATCH_CREATED
from dispatcher.domain.timing import VERIFY_GRACE_S
from dispatcher.ledger import celery_messages, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.placing import Place
from dispatcher.lifecycle.services import Services

# A job that LiveKit has offered meanwhile is another one.
_PLACED: Final = replace(DISPATCH_CREATED, notes=frozenset())


@dataclass(frozen=True)
class Placed:
    """The step that places the job was carried out, or the record has moved on: its state."""

    state: State


async def place(services: Services, dispatch: Dispatch, tries: Mapping[str, str]) -> Placed | None:
    """Create the room and give the job to the agent server with the most room; None: to none.

    `tries` are the tries as fields of the attempt.

    Raises:
        LiveKitError: the room cannot be created.
    """
    if not services.direct(dispatch) or dispatch.state is State.DELEGATED:
        return None
    servers = await services.ledger.run(reports.agent_servers())
    able = candidates(dispatch, servers)
    if not able:
        return None
    livekit, resend = services.livekit(dispatch), int(tries["tries"]) - 1
    automatic = services.settings.automatic_agents
    job = await livekit.create_job(dispatch, automatic=automatic, resend=resend)
    done = await services.advance(
        Advance(
            dispatch,
            _PLACED,
            due_in_s=services.settings.verify_timeout_s + VERIFY_GRACE_S,
            wake=celery_messages.verify(dispatch.dispatch_id, dispatch.room_name),
            place=Place(servers=able, job=job),
            attempt={"placement": DIRECT, **tries},
            detail={"placement": DIRECT, "tries": tries["tries"]},
        )
    )
    return None if done.outcome == "unplaced" else Placed(State(done.state))
