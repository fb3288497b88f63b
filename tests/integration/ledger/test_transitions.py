"""Is every change of a record logged, once, with the states before and after it?"""

from __future__ import annotations

import logging

import pytest

from dispatcher.domain.models import Dispatch, RememberedDispatch, State
from dispatcher.domain.state_machine import (
    ACCEPTED,
    AGENT_CONNECTED,
    DISPATCH_CREATED,
    DISPATCH_STARTED,
    FAILED,
    NEXT_GENERATION,
    REJECTED,
)
from dispatcher.ledger import dispatches, restoring
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.step import Step
from tests.support.values import AGENT_NAME, new_dispatch

TRACE_ID = "0123456789abcdef0123456789abcdef"
TRACEPARENT = f"00-{TRACE_ID}-0123456789abcdef-01"


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dispatcher.observability.state_changes")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str, str]]:
    """What has been logged since the last look."""
    lines = [
        (line.message, line.generation, line.from_state, line.to_state)  # type: ignore[attr-defined]
        for line in caplog.records
        if line.name == "dispatcher.observability.state_changes"
    ]
    caplog.clear()
    return lines


def created(store: Ledger, **changes: str) -> Dispatch:
    store.run(dispatches.create(new_dispatch(**changes), due_in_s=2, detail={"by": "http"}))
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    return dispatch


def test_each_event_is_one_line_from_state_to_state(
    store: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = created(store)
    assert told(caplog) == [("queued", 1, "", "queued")]

    store.run(dispatches.advance(Advance(dispatch, DISPATCH_STARTED)))
    store.run(dispatches.advance(Advance(dispatch, REJECTED, offered_ago_s=0.0)))
    store.run(dispatches.advance(Advance(dispatch, REJECTED, offered_ago_s=0.0)))
    store.run(dispatches.advance(Advance(dispatch, ACCEPTED, offered_ago_s=0.0)))
    store.run(dispatches.advance(Advance(dispatch, DISPATCH_CREATED)))
    store.run(dispatches.advance(Advance(dispatch, AGENT_CONNECTED)))
    store.run(dispatches.advance(Advance(dispatch, NEXT_GENERATION)))
    assert told(caplog) == [
        ("dispatching", 1, "queued", "dispatching"),
        ("offered", 1, "dispatching", "offered"),
        ("rejected", 1, "offered", "offered"),
        ("offered", 1, "offered", "offered"),
        ("rejected", 1, "offered", "offered"),
        ("offered", 1, "offered", "offered"),
        ("accepted", 1, "offered", "accepted"),
        ("dispatched", 1, "accepted", "accepted"),
        ("agent_connected", 1, "accepted", "accepted"),
        ("requeued", 2, "accepted", "queued"),
    ]
    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    assert len(record.timeline) == 11


def test_what_changes_nothing_is_not_logged(
    store: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = created(store)
    told(caplog)

    store.run(dispatches.create(new_dispatch("dsp_2"), due_in_s=2, detail={}))  # the room has one
    store.run(dispatches.advance(Advance(dispatch, AGENT_CONNECTED)))  # refused
    store.run(dispatches.advance(Advance(dispatch, NEXT_GENERATION)))  # refused
    remembered = _remembered("dsp_1")
    store.run(restoring.restore(remembered, by="web", retention_s=60))  # it is there

    assert told(caplog) == []


def test_what_is_written_again_is_logged_and_so_is_who_comes_too_late(
    store: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    for dispatch_id in ("dsp_1", "dsp_2"):
        step = restoring.restore(_remembered(dispatch_id), by="web", retention_s=60)
        store.run(step)

    assert told(caplog) == [
        ("restored", 1, "", "delegated"),
        ("superseded", 1, "", "cancelled"),
    ]


async def test_a_line_says_whose_it_is_why_and_which_trace_is_its(
    store: Ledger, async_store: AsyncLedger, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = created(store, traceparent=TRACEPARENT)
    caplog.clear()
    step: Step[dispatches.Advanced] = dispatches.advance(
        Advance(
            dispatch,
            FAILED,
            detail={"reason": "no_agent_online", "message": "start one", "tries": "3", "name": "x"},
        )
    )
    await async_store.run(step)

    (line,) = [
        line for line in caplog.records if line.name == "dispatcher.observability.state_changes"
    ]
    wanted = {
        "dispatch_id": "dsp_1",
        "client_id": "acme",
        "room": "room-1",
        "agent_name": AGENT_NAME,
        "reason": "no_agent_online",
        "why": "start one",
        "tries": 3,
        "trace_id": TRACE_ID,
        "levelname": "WARNING",
    }
    assert {name: line.__dict__[name] for name in wanted} == wanted


def test_the_trace_is_in_the_record_and_what_is_written_again_keeps_it(store: Ledger) -> None:
    assert created(store, traceparent=TRACEPARENT).traceparent == TRACEPARENT
    step = restoring.restore(
        _remembered("dsp_3", room_name="room-3", traceparent=TRACEPARENT), by="web", retention_s=60
    )
    store.run(step)
    restored = store.run(dispatches.read("dsp_3"))
    assert restored is not None
    assert restored.traceparent == TRACEPARENT


def _remembered(dispatch_id: str, **changes: str) -> RememberedDispatch:
    values = {"client_id": "acme", "room_name": "room-1", "agent_name": AGENT_NAME, **changes}
    return RememberedDispatch(
        dispatch_id=dispatch_id,
        generation=1,
        state=State.DELEGATED,
        container="",
        agent_metadata="",
        age_ms=0,
        deadline_ms=20_000,
        **values,
    )
