"""Does `rtc_session` of ours do what livekit-agents' own does, and what it adds?

livekit-agents' own AgentServer and JobRequest, with the real ledger.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis
from livekit.agents import AgentServer, AssignmentTimeoutError, JobContext, JobRequest

from dispatcher.domain import state_machine
from dispatcher.domain.models import State
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from tests.support.offers import ACCEPT, REJECT, REJECT_EVERYWHERE, Offered, identity
from tests.support.values import AGENT_NAME, counts, new_dispatch
from worker_agent import rtc_session
from worker_agent.program_on_request import OnRequest, ask_program
from worker_agent.request_filter import RequestFilter

COUNTERS = f"usher:metrics:agent:acme:box-1:{AGENT_NAME}"
server = AgentServer()
other_server = AgentServer()


@rtc_session(server, agent_name=AGENT_NAME)
async def decorated(ctx: JobContext) -> None:
    """A program's entry point."""


async def undecorated(ctx: JobContext) -> None:
    """Another program's."""


handed_over = rtc_session(other_server, undecorated, agent_name=AGENT_NAME)


def test_the_entry_points_reach_another_process_by_their_names() -> None:
    """As a decorator's result, and as that of a call: livekit-agents pickles them for each job."""
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert server._entrypoint_fnc is decorated
    copy = pickle.loads(pickle.dumps(handed_over))
    assert copy is not handed_over
    assert copy._entrypoint is undecorated
    assert (decorated.__name__, decorated.__doc__) == ("decorated", "A program's entry point.")


def test_livekit_agents_options_are_passed_on() -> None:
    async def ended(ctx: JobContext) -> None: ...

    ours = AgentServer()
    rtc_session(ours, undecorated, agent_name="somebody", on_session_end=ended)
    assert (ours._agent_name, ours._session_end_fnc) == ("somebody", ended)
    with pytest.raises(TypeError):
        rtc_session(AgentServer(), undecorated, no_such_option=1)


def test_importing_the_package_brings_nothing_along() -> None:
    looked = subprocess.run(
        [sys.executable, "-c", "import sys, worker_agent; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"redis", "livekit", "celery", "worker_agent.program"} & set(looked.stdout.split())


def test_importing_a_program_reads_no_setting_and_opens_nothing() -> None:
    program = (
        "import socket\n"
        "from livekit.agents import AgentServer\n"
        "from worker_agent import rtc_session\n"
        "socket.socket = None\n"
        "async def f(ctx): ...\n"
        "rtc_session(AgentServer(), f)\n"
    )
    subprocess.run([sys.executable, "-c", program], env={}, check=True, capture_output=True)


@pytest_asyncio.fixture
async def request_filter(async_store: AsyncLedger, store: Ledger) -> AsyncIterator[RequestFilter]:
    """A filter with two slots, and `dsp_1` on its way to it."""
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_CREATED, due_in_s=7)))
    yield RequestFilter(identity(), async_store)


def state(store: Ledger) -> tuple[State, str, str]:
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    return dispatch.state, dispatch.job_id, dispatch.attempt.reason


async def test_what_the_program_accepts_is_claimed_and_accepted_as_it_wants(
    request_filter: RequestFilter, store: Ledger
) -> None:
    async def own(request: JobRequest) -> None:
        assert state(store)[0] is State.DISPATCHED  # nothing is claimed before it answers
        await request.accept(name="Ann", identity="ann-1", metadata="m", attributes={"a": "b"})
        assert state(store)[0] is State.ACCEPTED

    offered = Offered()
    await ask_program(own, request_filter, offered.request)

    assert offered.answers == [ACCEPT]
    wanted = offered.accepted_with
    assert wanted is not None
    assert (wanted.name, wanted.identity, wanted.metadata) == ("Ann", "ann-1", "m")
    assert wanted.attributes == {"a": "b", "usher.dispatch_id": "dsp_1", "usher.generation": "1"}


async def rejects(request: JobRequest) -> None:
    await request.reject()


async def rejects_here(request: JobRequest) -> None:
    await request.reject(terminate=False)


async def forgets(request: JobRequest) -> None: ...


async def test_a_program_s_reject_is_final_for_livekit_and_for_the_session(
    request_filter: RequestFilter, store: Ledger, raw: redis.Redis
) -> None:
    offered = Offered()
    await ask_program(rejects, request_filter, offered.request)

    assert offered.answers == [REJECT_EVERYWHERE]
    assert state(store) == (State.FAILED, "", "declined_by_program")
    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    assert record.failure_reason == "rejected: declined_by_program"
    assert "terminate=False" in record.failure_message
    assert counts(raw, COUNTERS) == {"rejects:declined_by_program": 1}


@pytest.mark.parametrize("own", [rejects_here, forgets])
async def test_what_the_program_rejects_for_this_server_is_not_claimed_and_the_record_says_why(
    own: OnRequest, request_filter: RequestFilter, store: Ledger, raw: redis.Redis
) -> None:
    offered = Offered()
    await ask_program(own, request_filter, offered.request)

    assert offered.answers == [REJECT]
    assert state(store) == (State.OFFERED, "", "declined_by_program")
    assert counts(raw, COUNTERS) == {"rejects:declined_by_program": 1}
    second = Offered("AJ_2")  # whom LiveKit asks next can have it
    await request_filter(second.request)
    assert second.answers == [ACCEPT]


async def test_a_program_that_fails_rejects_and_its_error_is_livekit_agents_to_log(
    request_filter: RequestFilter, store: Ledger
) -> None:
    async def own(request: JobRequest) -> None:
        raise ZeroDivisionError

    offered = Offered()
    with pytest.raises(ZeroDivisionError):
        await ask_program(own, request_filter, offered.request)

    assert offered.answers == [REJECT]
    assert state(store) == (State.OFFERED, "", "declined_by_program")


async def test_a_program_that_accepts_what_the_filter_refuses_is_told_and_need_not_mind(
    request_filter: RequestFilter, store: Ledger
) -> None:
    told: list[type[BaseException]] = []

    async def minds(request: JobRequest) -> None:
        try:
            await request.accept()
        except AssignmentTimeoutError as error:
            told.append(type(error))
            raise

    await request_filter(Offered("AJ_1").request)
    for own in (minds, JobRequest.accept):
        second = Offered("AJ_2")
        await ask_program(own, request_filter, second.request)
        assert second.answers == [REJECT_EVERYWHERE]
    assert len(told) == 1
    assert state(store)[:2] == (State.ACCEPTED, "AJ_1")


async def test_an_accept_that_livekit_does_not_assign_is_told_to_the_program(
    request_filter: RequestFilter,
) -> None:
    async def own(request: JobRequest) -> None:
        with pytest.raises(AssignmentTimeoutError):
            await request.accept()

    offered = Offered(times_out=True)
    await ask_program(own, request_filter, offered.request)
    assert offered.answers == [ACCEPT]
