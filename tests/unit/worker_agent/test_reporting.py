"""What load does an agent server report to LiveKit?"""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents import AgentServer, utils
from livekit.protocol.agent import WorkerStatus

from worker_agent.decisions import AgentServerIdentity
from worker_agent.join_limit import TOGETHER
from worker_agent.livekit_workarounds import own_load
from worker_agent.load_report import (
    LIVEKIT_TARGET_LOAD,
    Reporter,
    ReportOptions,
    livekit_load,
)
from worker_agent.request_filter import RequestFilter


@pytest.mark.parametrize("slots", [1, 2, 7, 40, 1000])
def test_the_load_stays_below_livekits_target_up_to_the_last_slot_and_beyond(slots: int) -> None:
    for used_slots in range(slots + 2):
        assert 0 <= livekit_load(used_slots=used_slots, slots=slots) < LIVEKIT_TARGET_LOAD


@pytest.mark.parametrize("slots", [1, 2, 7, 40, 1000])
def test_the_load_rises_with_every_used_slot(slots: int) -> None:
    loads = [livekit_load(used_slots=used, slots=slots) for used in range(slots + 1)]

    assert all(lower < higher for lower, higher in itertools.pairwise(loads))


def test_an_idle_agent_server_reports_no_load() -> None:
    assert livekit_load(used_slots=0, slots=40) == 0


def test_the_target_load_is_the_one_that_livekit_ships_with() -> None:
    assert LIVEKIT_TARGET_LOAD == 0.7


def test_of_two_agent_servers_the_relatively_emptier_one_reports_less() -> None:
    assert livekit_load(used_slots=10, slots=40) < livekit_load(used_slots=1, slots=2)


def with_own_load(
    load: float, *, jobs: int = 0, status: WorkerStatus = WorkerStatus.WS_AVAILABLE
) -> AgentServer:
    """livekit-agents' server as it is when it has just measured that load with so many jobs."""
    server = AgentServer(load_threshold=0.7, num_idle_processes=2)
    server._devmode = server._simulation = server._draining = False
    server._worker_load, server._reserved_slots, server._previous_status = load, 0, status
    server._proc_pool = SimpleNamespace(processes=[SimpleNamespace(running_job=True)] * jobs)
    return server


@pytest.mark.parametrize("load", [0.01, 0.1, 0.34, 0.36, 0.69])
@pytest.mark.parametrize("jobs", [0, 1, 7, 40])
def test_as_many_are_told_as_livekit_agents_itself_would_accept_one_after_the_other(
    load: float, jobs: int
) -> None:
    server = with_own_load(load, jobs=jobs)

    for left in range(own_load.accepts(server) or 0, 0, -1):
        assert own_load.accepts(server) == left
        assert server._is_available()
        server._reserved_slots += 1
    assert not server._is_available()


@pytest.mark.parametrize("load", [0.7, 0.95])
def test_above_its_threshold_it_takes_none(load: float) -> None:
    assert own_load.accepts(with_own_load(load)) == 0


def test_one_that_livekit_has_been_told_is_full_takes_none_whatever_its_load_is_by_now() -> None:
    assert own_load.accepts(with_own_load(0.1, status=WorkerStatus.WS_FULL)) == 0


@pytest.mark.parametrize(
    ("load", "connecting", "told"),
    [(0.1, False, [WorkerStatus.WS_AVAILABLE]), (0.7, False, []), (0.1, True, [])],
)
async def test_livekit_is_told_at_once_and_only_once_that_a_full_one_is_free_again(
    load: float, connecting: bool, told: list[WorkerStatus]
) -> None:
    server = with_own_load(load, status=WorkerStatus.WS_FULL)
    server._connecting = connecting
    server._msg_chan = utils.aio.Chan()

    await own_load.tell_that_it_is_free(server)
    await own_load.tell_that_it_is_free(server)

    sent = [server._msg_chan.recv_nowait() for _ in range(server._msg_chan.qsize())]
    assert [message.update_worker.status for message in sent] == told
    assert (own_load.accepts(server) == 0) is (not told)


def test_without_a_threshold_it_takes_any_number() -> None:
    server = with_own_load(0.9)
    server.update_options(load_threshold=math.inf)

    assert own_load.accepts(server) is None


@pytest.mark.parametrize(("one_process", "starts"), [(True, TOGETHER), (False, None)])
async def test_only_where_all_agents_share_a_process_is_it_told_how_many_may_begin(
    one_process: bool, starts: int | None
) -> None:
    identity = AgentServerIdentity(
        agent_server_id="server-1", agent_name="agent", container="box-1", client_id="", slots=100
    )
    store: Any = None
    reporter = Reporter(
        identity,
        with_own_load(0.0),
        RequestFilter(identity, store),
        store,
        ReportOptions(period_s=2.0, one_process=one_process),
    )

    assert reporter._figures() == (0, None, starts)
