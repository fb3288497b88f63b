"""Who wins when several want the same dispatch, and who hears of it?"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.models import TERMINAL, Dispatch, State
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from tests.support.values import AGENT_NAME, eventually, keyspace, new_dispatch

LIVE = f"usher:live:acme:{AGENT_NAME}:room-1"


def started(store: Ledger, state: State = State.DISPATCHED) -> Dispatch:
    """A new dispatch on its way to an agent."""
    store.run(dispatches.create(new_dispatch(), due_in_s=2.0, detail={}))
    dispatch = read(store)
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    if state is not State.DISPATCHING:
        store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_CREATED, due_in_s=7)))
    return read(store)


def read(store: Ledger, dispatch_id: str = "dsp_1") -> Dispatch:
    dispatch = store.run(dispatches.read(dispatch_id))
    assert dispatch is not None
    return dispatch


async def test_of_fifty_jobs_that_claim_at_once_exactly_one_gets_the_dispatch(
    store: Ledger, async_store: AsyncLedger
) -> None:
    dispatch = started(store)

    answers = await asyncio.gather(
        *(
            async_store.run(
                dispatches.advance(
                    Advance(
                        dispatch, state_machine.ACCEPTED, due_in_s=7, fields={"job_id": f"AJ_{n}"}
                    )
                )
            )
            for n in range(50)
        )
    )

    (winner,) = [n for n, answer in enumerate(answers) if answer.moved]
    assert read(store).job_id == f"AJ_{winner}"
    assert [event.event for event in read(store).timeline].count("accepted") == 1
    losers = [answer for answer in answers if not answer.moved]
    assert {(loser.outcome, loser.job_id) for loser in losers} == {("refused", f"AJ_{winner}")}


async def test_of_fifty_that_give_up_at_once_the_generation_rises_by_one(
    store: Ledger, async_store: AsyncLedger
) -> None:
    dispatch = started(store)

    answers = await asyncio.gather(
        *(
            async_store.run(dispatches.advance(Advance(dispatch, transition, due_in_s=1)))
            for transition in [state_machine.WAIT, state_machine.NEXT_GENERATION] * 25
        )
    )

    assert [answer.moved for answer in answers].count(True) == 1
    assert read(store).generation == 2


async def test_of_fifty_requests_at_once_for_one_room_one_makes_the_dispatch(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    answers = await asyncio.gather(
        *(
            async_store.run(dispatches.create(new_dispatch(f"dsp_{n}"), due_in_s=2.0, detail={}))
            for n in range(50)
        )
    )

    (made,) = [answer for answer in answers if answer.new]
    assert {answer.dispatch_id for answer in answers} == {made.dispatch_id}
    assert len(keyspace(raw)) == 7  # of one record, and its message


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_redispatch_by_hand_brings_an_ended_record_back_to_life(
    state: State, store: Ledger, raw: redis.Redis
) -> None:
    dispatch = started(store)
    raw.delete(LIVE)
    raw.zrem("usher:due", "dsp_1")
    raw.hset("usher:dispatch:dsp_1", "state", state)
    for key in raw.scan_iter("usher:dispatch:*"):
        raw.expire(key, 60)

    done = store.run(
        dispatches.advance(
            Advance(
                dispatch,
                state_machine.REDISPATCH,
                due_in_s=2,
                times=Times(deadline_in_s=30),
                detail={},
            )
        )
    )

    found, again = keyspace(raw), read(store)
    assert done.moved
    assert (again.state, again.generation) == (State.QUEUED, 2)
    assert again.requested_at_ms == again.updated_at_ms
    assert again.deadline_at_ms == again.requested_at_ms + 30_000
    assert again.created_at_ms == dispatch.created_at_ms
    assert found[LIVE] == "dsp_1"
    assert found["usher:due"] == {"dsp_1": again.updated_at_ms + 2000}
    assert not any(isinstance(value, tuple) for value in found.values())  # nothing expires


def test_a_room_that_another_dispatch_serves_is_not_taken_from_it(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = started(store)
    store.run(
        dispatches.advance(Advance(dispatch, state_machine.FAILED, times=Times(retention_s=60)))
    )
    store.run(dispatches.create(new_dispatch("dsp_2"), due_in_s=2.0, detail={}))
    before = keyspace(raw)

    done = store.run(
        dispatches.advance(
            Advance(dispatch, state_machine.REDISPATCH, due_in_s=2, times=Times(deadline_in_s=30))
        )
    )

    assert (done.outcome, done.job_id) == ("occupied", "dsp_2")
    assert keyspace(raw) == before


async def test_every_change_is_told_on_the_dispatches_channel(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = started(store)
    with raw.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("usher:wake:dsp_1")
        channel.get_message(timeout=5)
        store.run(
            dispatches.advance(
                Advance(dispatch, state_machine.ACCEPTED, offered_ago_s=0.0, due_in_s=7)
            )
        )
        store.run(dispatches.advance(Advance(dispatch, state_machine.AGENT_CONNECTED)))
        store.run(
            dispatches.advance(Advance(dispatch, state_machine.ACCEPTED))
        )  # refused: nothing to tell
        store.run(
            dispatches.advance(Advance(replace(dispatch, generation=9), state_machine.JOINED))
        )  # stale
        store.run(dispatches.advance(Advance(dispatch, state_machine.JOINED)))
        heard: list[str] = []

        def listen() -> bool:
            while message := channel.get_message(timeout=0):
                heard.append(message["data"])
            return heard[-1:] == ["joined"]

        await eventually(listen)
    assert heard == ["accepted", "agent_connected", "joined"]
