"""Request the agent of one attempt, once, within the tries of the retry policy.

From LiveKit, or from an agent server itself (`lifecycle/placement.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from dispatcher.domain.agent_servers import eligible
from dispatcher.domain.models import END_MARGIN_S, WAITED, Dispatch, FailureReason, State
from dispatcher.domain.rooms import sent_before, sent_now
from dispatcher.errors import TransientLiveKitError
from dispatcher.ledger import reports
from dispatcher.lifecycle.outcomes import read
from dispatcher.lifecycle.placement import Placed, place
from dispatcher.lifecycle.services import Services
from dispatcher.livekit.retry import policy


class GiveUp(Enum):
    """Why LiveKit is not asked for this generation."""

    OVERTAKEN = "overtaken"  # the record has a newer generation, or has ended
    NO_AGENT_SERVER = "no_agent_server"  # LiveKit is back before them: it would drop the job


@dataclass
class Tries:
    """The tries of one attempt so far, and their errors."""

    count: int = 0
    errors: list[str] = field(default_factory=list)
    maybe_asked: bool = False  # LiveKit may have been asked for this generation

    def note(self, number: int, error: BaseException) -> None:
        """Keep the error of try `number`."""
        self.errors.append(f"try {number}: {error}")
        if isinstance(error, TransientLiveKitError) and error.outcome_unknown:
            self.maybe_asked = True

    def fields(self, **more: str) -> Mapping[str, str]:
        """Return the tries as fields of the attempt in the ledger."""
        return {"tries": str(self.count), "errors": json.dumps(self.errors), **more}


async def ask(services: Services, dispatch: Dispatch, tries: Tries) -> str | Placed | GiveUp:
    """Try until LiveKit answers; return LiveKit's dispatch id, or why it was not asked.

    `Placed` when an agent server has been given the job instead.

    Raises:
        TimeoutError: the dispatch's deadline came first.
        PermanentLiveKitError: LiveKit refused.
        TransientLiveKitError: no try was answered.
    """
    retrying = policy(on_failure=tries.note, sleep=services.sleep)
    # An answer after that would come too late for the deadline.
    async with asyncio.timeout(max(0.0, dispatch.remaining_s - END_MARGIN_S)):
        answer: str | Placed | GiveUp = await retrying(_try, services, dispatch, tries)
    return answer


def may_have_been_asked(dispatch: Dispatch) -> bool:
    """Return false where every earlier generation has only waited for an agent server."""
    waited = {each.generation for each in dispatch.attempts if each.outcome == WAITED}
    return not waited.issuperset(range(1, dispatch.generation))


async def _try(services: Services, dispatch: Dispatch, tries: Tries) -> str | Placed | GiveUp:
    """Ask for this generation once, unless LiveKit has been asked or need not be."""
    tries.count += 1
    if tries.count > 1:
        record = await read(services, dispatch.dispatch_id)
        if record.generation != dispatch.generation or record.terminal:
            return GiveUp.OVERTAKEN
    # The fence holds against what is left of earlier generations.
    if not tries.maybe_asked and (placed := await place(services, dispatch, tries.fields())):
        return placed
    by_token = dispatch.state is State.DELEGATED
    maybe_asked = tries.maybe_asked or may_have_been_asked(dispatch) or by_token
    if maybe_asked and (found := await _look_for_it(services, dispatch)):
        return found
    if not await _has_agent_server(services, dispatch, tries):
        return GiveUp.NO_AGENT_SERVER
    livekit, resend = services.livekit(dispatch), tries.count - 1
    if not maybe_asked:
        automatic = services.settings.automatic_agents
        await livekit.create_room(dispatch, automatic=automatic, resend=resend)
        tries.maybe_asked = True  # the next try must look first
        # For a room that was there before LiveKit has not been asked.
        if found := await _look_for_it(services, dispatch, room_is_there=True):
            return found
    return await livekit.create_dispatch(dispatch, resend=resend)


async def _look_for_it(
    services: Services, dispatch: Dispatch, *, room_is_there: bool = False
) -> str | None:
    """Return LiveKit's id of this generation, if LiveKit lists it; delete the older ones."""
    livekit = services.livekit(dispatch)
    # Only a room that had an agent can have been deleted.
    listed = await livekit.list_dispatch(
        dispatch.room_name, there=room_is_there, deleted=may_have_been_asked(dispatch)
    )
    for older in sent_before(dispatch, listed):
        await livekit.delete_dispatch(older, dispatch.room_name)
    return sent_now(dispatch, listed)


async def _has_agent_server(services: Services, dispatch: Dispatch, tries: Tries) -> bool:
    """Require an agent server online after LiveKit was away: they register seconds after it."""
    was_away = tries.count > 1 or dispatch.failure_reason == FailureReason.LIVEKIT_UNREACHABLE
    if not was_away or not services.fenced(dispatch):
        return True
    # Raises if LiveKit itself is the reason.
    await services.livekit(dispatch).look(dispatch.room_name)
    servers = await services.ledger.run(reports.agent_servers())
    return bool(eligible(dispatch, servers))
