"""Does a client see its own dispatches, each once, newest first, and does the index stay small?"""

from __future__ import annotations

import pytest
import redis

from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.state_machine import FAILED
from dispatcher.ledger import dispatches, keys, queries
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.queries import Page, Position
from tests.support.values import keyspace, new_dispatch


def make(store: Ledger, dispatch_id: str, client_id: str = "acme") -> None:
    new = new_dispatch(
        dispatch_id, client_id=client_id, room_name=f"room-{dispatch_id}", agent_metadata="secret"
    )
    store.run(dispatches.create(new, due_in_s=2.0, detail={}))


def page(
    store: Ledger, limit: int = 100, state: State | None = None, after: Position | None = None
) -> Page:
    return store.run(queries.page("acme", state=state, limit=limit, after=after))


def walk(store: Ledger, limit: int, state: State | None = None) -> list[str]:
    """Every id, page by page, each position sent as text and back."""
    found: list[str] = []
    after: Position | None = None
    while True:
        got = page(store, limit, state, after)
        assert len(got.dispatches) <= limit
        found += [dispatch.dispatch_id for dispatch in got.dispatches]
        if got.next is None:
            return found
        after = Position.parse(str(got.next))


def test_there_is_nothing_to_list_at_first(store: Ledger) -> None:
    assert page(store) == Page(dispatches=(), next=None)


def test_a_client_sees_its_own_newest_first_without_metadata_and_nothing_is_written(
    store: Ledger, raw: redis.Redis
) -> None:
    for number in range(3):
        make(store, f"dsp_{number}")
        raw.zadd("usher:index:acme", {f"dsp_{number}": 1000 + number})
    make(store, "dsp_others", "globex")
    before = keyspace(raw)

    got = page(store)

    assert [dispatch.dispatch_id for dispatch in got.dispatches] == ["dsp_2", "dsp_1", "dsp_0"]
    assert got.next is None
    assert keyspace(raw) == before
    whole = store.run(dispatches.read("dsp_2"))
    assert whole is not None
    listed = got.dispatches[0]
    assert isinstance(listed, Dispatch)
    assert listed.agent_metadata == ""
    assert (listed.state, listed.room_name) == (whole.state, whole.room_name)
    assert listed.deadline_at_ms == whole.deadline_at_ms


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 100])
def test_pages_bring_each_dispatch_once_even_those_of_one_millisecond(
    limit: int, store: Ledger, raw: redis.Redis
) -> None:
    ids = [f"dsp_{letter}{number}" for number in range(8) for letter in "aZ_-9"]
    for dispatch_id in ids:
        make(store, dispatch_id)
    raw.zadd("usher:index:acme", {dispatch_id: 1000 + n // 10 for n, dispatch_id in enumerate(ids)})

    found = walk(store, limit)

    assert found == raw.zrevrange("usher:index:acme", 0, -1)
    assert sorted(found) == sorted(ids)


def test_a_page_goes_on_where_the_last_one_ended_whatever_came_or_went_meanwhile(
    store: Ledger, raw: redis.Redis
) -> None:
    for number in range(6):
        make(store, f"dsp_{number}")
        raw.zadd("usher:index:acme", {f"dsp_{number}": 1000 + number})
    first = page(store, limit=2)
    make(store, "dsp_new")
    raw.delete("usher:dispatch:dsp_4")  # the very one that the position names
    raw.zrem("usher:index:acme", "dsp_4")

    second = page(store, limit=2, after=first.next)

    assert [d.dispatch_id for d in first.dispatches] == ["dsp_5", "dsp_4"]
    assert [d.dispatch_id for d in second.dispatches] == ["dsp_3", "dsp_2"]


def test_only_those_in_a_state_are_listed_if_one_is_named(store: Ledger, raw: redis.Redis) -> None:
    for number in range(250):
        make(store, f"dsp_{number:03}")
    wanted = ["dsp_007", "dsp_199"]
    for dispatch_id in wanted:
        raw.hset(f"usher:dispatch:{dispatch_id}", "state", "failed")

    assert sorted(walk(store, 1, State.FAILED)) == wanted
    assert walk(store, 100, State.ENDED) == []


def test_a_call_looks_at_a_bounded_number_of_records(store: Ledger, raw: redis.Redis) -> None:
    for number in range(queries.MOST_LOOKED_AT + 50):
        make(store, f"dsp_{number:04}")
        raw.zadd("usher:index:acme", {f"dsp_{number:04}": 1000 + number})
    raw.hset("usher:dispatch:dsp_0007", "state", "ended")

    first = page(store, state=State.ENDED)
    assert first.dispatches == ()
    assert first.next == Position(created_at_ms="1050", dispatch_id="dsp_0050")

    second = page(store, state=State.ENDED, after=first.next)
    assert [dispatch.dispatch_id for dispatch in second.dispatches] == ["dsp_0007"]
    assert second.next is None


def test_ids_without_a_record_are_dropped_as_they_are_met(store: Ledger, raw: redis.Redis) -> None:
    for number in range(150):
        make(store, f"dsp_{number:03}")
    for number in range(0, 150, 2):
        raw.delete(f"usher:dispatch:dsp_{number:03}")

    found = walk(store, 40)

    assert sorted(found) == [f"dsp_{number:03}" for number in range(1, 150, 2)]
    assert sorted(raw.zrange("usher:index:acme", 0, -1)) == sorted(found)


def test_the_index_forgets_what_has_gone_though_nobody_lists(
    store: Ledger, raw: redis.Redis
) -> None:
    raw.zadd("usher:index:acme", {f"dsp_gone{number}": number for number in range(300)})

    for number in range(300):
        make(store, f"dsp_{number}")

    gone = [member for member in raw.zrange("usher:index:acme", 0, -1) if "gone" in member]
    assert len(gone) < 150
    assert raw.zcard("usher:index:acme") == 300 + len(gone)


def test_a_record_that_nobody_can_read_does_not_hide_the_others(
    store: Ledger, raw: redis.Redis
) -> None:
    make(store, "dsp_1")
    make(store, "dsp_2")
    raw.hset("usher:dispatch:dsp_1", "state", "nonsense")

    assert [dispatch.dispatch_id for dispatch in page(store).dispatches] == ["dsp_2"]


@pytest.mark.parametrize(
    "text",
    ["", "x", "1", "1.", ".dsp_1", "1.dsp 1", "1.dsp_1\n", "-1.d", "\N{ARABIC-INDIC DIGIT ONE}.d"],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no cursor"):
        Position.parse(text)


def test_news_are_what_came_after_a_number_and_numbers_outlast_the_trimming(
    store: Ledger, raw: redis.Redis
) -> None:
    make(store, "dsp_1")
    ref = store.run(dispatches.read("dsp_1"))
    assert ref is not None
    assert store.run(queries.news("dsp_1", after=1)).events == []
    raw.rpush(
        keys.timeline("dsp_1"),
        *(f'{{"at_ms":1,"event":"e{n}","generation":1,"detail":{{}}}}' for n in range(2, 250)),
    )
    store.run(dispatches.advance(Advance(ref, FAILED)))

    news = store.run(queries.news("dsp_1", after=247))

    assert [event.event for event in news.events] == ["e248", "e249", "failed"]
    assert (news.state, news.position) == (State.FAILED, 250)
    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    assert (record.timeline_dropped, len(record.timeline)) == (50, 200)
    assert len(store.run(queries.news("dsp_1", after=0)).events) == 200
    assert len(store.run(queries.news("dsp_1", after=251)).events) == 200
    assert store.run(queries.news("dsp_none", after=0)).state is None
