"""Is it told that LiveKit refuses a client's key, where nothing could be sent to it yet?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dispatcher.domain import state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import DispatchFailed
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.lifecycle import dispatching
from tests.support.house import OpenServices, Request
from tests.support.scenario import Scenario

Look = Callable[[], Dispatch]
ANOTHER_SECRET = {"LIVEKIT_API_SECRET": "a-secret-that-livekit-has-no-longer"}


async def test_with_no_agent_server_a_wrong_secret_is_the_reason(
    services_for: OpenServices, request_dispatch: Request, look: Look
) -> None:
    services = await services_for(**ANOTHER_SECRET)
    request_dispatch()

    with pytest.raises(DispatchFailed, match="livekit_refused"):
        await dispatching.dispatch_agent(services, "dsp_1")

    record = look()
    assert (record.state, record.failure_reason) == (State.FAILED, "livekit_refused")
    assert "check this client's LiveKit URL, key and secret" in record.failure_message


async def test_one_that_waits_for_an_agent_server_learns_that_the_secret_was_changed(
    services_for: OpenServices, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    reason = {"failure_reason": "no_agent_online", "failure_message": "none is there"}
    scenario.run(
        dispatches.advance(Advance(dispatch, state_machine.WAIT, due_in_s=1, fields=reason))
    )
    services = await services_for(**ANOTHER_SECRET)

    with pytest.raises(DispatchFailed, match="livekit_refused"):
        await dispatching.dispatch_agent(services, "dsp_1")

    assert (scenario.look().state, scenario.look().failure_reason) == (
        State.FAILED,
        "livekit_refused",
    )
