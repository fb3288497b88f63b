"""Request the agent of one attempt from LiveKit, once, in as many tries as the retry policy allows.

What a try does next is decided in `domain/dispatch_steps.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from dispatcher.domain.dispatch_steps import Ask, Asked, GiveUp, Look, Seen, TakeBack, next_step
from dispatcher.domain.models import END_MARGIN_S, Dispatch
from dispatcher.errors import TransientLiveKitError
from dispatcher.ledger import reports
from dispatcher.lifecycle.outcomes import read
from dispatcher.lifecycle.services import Services
from dispatcher.livekit.retry import policy


@dataclass
class Tries:
    """The tries of one attempt so far, and their errors."""

    count: int = 0
    errors: list[str] = field(default_factory=list)
    maybe_asked: bool = False

    def note(self, number: int, error: BaseException) -> None:
        """Keep the error of try `number`."""
        self.errors.append(f"try {number}: {error}")
        if isinstance(error, TransientLiveKitError) and error.outcome_unknown:
            self.maybe_asked = True

    def fields(self, **more: str) -> Mapping[str, str]:
        """Return the tries as fields of the attempt in the ledger."""
        return {"tries": str(self.count), "errors": json.dumps(self.errors), **more}


async def ask(
    services: Services,
    dispatch: Dispatch,
    tries: Tries,
    *,
    sleep: Callable[[float], Awaitable[None]],
) -> str | GiveUp:
    """Try until LiveKit answers; return LiveKit's dispatch id, or why it was not asked.

    Raises:
        TimeoutError: the dispatch's deadline came first.
        PermanentLiveKitError: LiveKit refused.
        TransientLiveKitError: no try was answered.
    """

    async def one_try() -> str | GiveUp:
        tries.count += 1
        return await _ask(services, dispatch, tries)

    # An answer after that would come too late for the deadline.
    async with asyncio.timeout(max(0.0, dispatch.remaining_s - END_MARGIN_S)):
        answer: str | GiveUp = await policy(on_failure=tries.note, sleep=sleep)(one_try)
    return answer


async def _ask(services: Services, dispatch: Dispatch, tries: Tries) -> str | GiveUp:
    """Make one try."""
    fenced = not services.unfenced(dispatch.agent_name)
    seen = Seen(fenced=fenced, try_number=tries.count, maybe_asked=tries.maybe_asked)
    while True:
        step = next_step(dispatch, seen)
        if isinstance(step, GiveUp):
            return step
        if isinstance(step, Asked):
            return step.livekit_dispatch_id
        if step is Ask.BY_DISPATCH:
            livekit = services.livekit(dispatch)
            return await livekit.create_dispatch(dispatch, resend=tries.count - 1)
        seen = await _carry_out(services, dispatch, tries, seen, step)


async def _carry_out(
    services: Services, dispatch: Dispatch, tries: Tries, seen: Seen, step: Look | Ask | TakeBack
) -> Seen:
    """Carry out a step that comes before the answer; return what has been seen since."""
    livekit, room_name = services.livekit(dispatch), dispatch.room_name
    match step:
        case Look.RECORD:
            return replace(seen, record=await read(services, dispatch.dispatch_id))
        case Look.DISPATCHES:
            # Only a room that had an agent can have been deleted.
            listed = await livekit.list_dispatch(
                room_name, there=seen.room_made, deleted=dispatch.generation > 1
            )
            return replace(seen, dispatches=listed)
        case Look.AGENT_SERVERS:
            await livekit.look(room_name)  # raises if LiveKit itself is the reason
            servers = await services.ledger.run(reports.agent_servers())
            return replace(seen, agent_servers=servers)
        case TakeBack():
            for livekit_dispatch_id in step.livekit_dispatch_ids:
                await livekit.delete_dispatch(livekit_dispatch_id, room_name)
            return replace(seen, taken_back=True)
        case Ask():
            automatic = services.settings.automatic_agents
            await livekit.create_room(dispatch, automatic=automatic, resend=tries.count - 1)
            tries.maybe_asked = True  # the next try must look first
            return replace(seen, room_made=True)
