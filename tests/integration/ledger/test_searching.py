"""Is every session found that is looked for, of whatever client, once, the newest first?"""

from __future__ import annotations

from typing import Any

import pytest
import redis

from dispatcher.domain.models import State
from dispatcher.domain.state_machine import FAILED, REDISPATCH
from dispatcher.ledger import dispatches, queries
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.queries import Position
from tests.support.ledgers import Told, fill

BOTH = ("acme", "globex")


def tell(raw: redis.Redis, *, ends_as: str = "queued", numbers: range = range(12)) -> None:
    """Sessions of two clients in turn, three of them asked for in the same millisecond."""
    fill(raw, (Told(number=n, ends_as=ends_as, client_id=BOTH[n % 2]) for n in numbers))
    for n in numbers:
        raw.zadd(f"usher:index:{BOTH[n % 2]}", {f"dsp_{n:06d}": 1000 + n // 3})


def found(
    store: Ledger, clients: tuple[str, ...] = BOTH, limit: int = 100, **sought: Any
) -> list[int]:
    """The numbers of all that is found, page by page."""
    numbers: list[int] = []
    after: Position | None = None
    for _ in range(50):
        page = store.run(queries.search(clients, limit=limit, after=after, **sought))
        numbers += [int(dispatch.dispatch_id.removeprefix("dsp_")) for dispatch in page.dispatches]
        if page.next is None:
            return numbers
        after = Position.parse(str(page.next))
    pytest.fail("it never ends")


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_several_clients_sessions_are_one_list_the_newest_first(
    store: Ledger, raw: redis.Redis, limit: int
) -> None:
    tell(raw)
    assert found(store, limit=limit) == list(range(11, -1, -1))


def test_a_client_that_is_not_asked_for_is_not_found(store: Ledger, raw: redis.Redis) -> None:
    tell(raw)
    assert found(store, ("acme",)) == [10, 8, 6, 4, 2, 0]
    assert found(store, ()) == []


def test_more_than_a_batch_is_found_whole(store: Ledger, raw: redis.Redis) -> None:
    tell(raw, numbers=range(450))
    assert found(store, limit=70) == list(range(449, -1, -1))
    assert found(store, limit=1000) == list(range(449, -1, -1))


def test_by_state_by_time_and_by_text(store: Ledger, raw: redis.Redis) -> None:
    tell(raw)
    tell(raw, ends_as="joined", numbers=range(12, 16))
    assert found(store, states=(State.JOINED,)) == [15, 14, 13, 12]
    assert found(store, states=(State.JOINED, State.WAITING), text="lesson-13") == [13]
    assert found(store, since_ms=1003) == [15, 14, 13, 12, 11, 10, 9]
    assert found(store, text="lesson-1") == [15, 14, 13, 12, 11, 10, 1]
    assert found(store, text="dsp_00000") == list(range(9, -1, -1))
    assert found(store, text="000") == []  # an id is found from its beginning only
    assert found(store, text="%") == []


def test_failed_ones_are_found_by_when_they_failed_without_a_look_at_the_others(
    store: Ledger, raw: redis.Redis
) -> None:
    tell(raw, ends_as="failed", numbers=range(2))
    tell(raw, numbers=range(2, 6))
    late = Told(number=3, ends_as="queued", client_id="globex").ref
    store.run(dispatches.advance(Advance(late, FAILED, times=Times(retention_s=3600))))
    raw.zadd("usher:failed:acme", {"dsp_000000": 5})
    raw.delete("usher:index:acme", "usher:index:globex")
    assert found(store, states=(State.FAILED,)) == [3, 1, 0]
    assert found(store, states=(State.FAILED,), since_ms=6) == [3, 1]

    # Sent again it has not failed; what Redis has forgotten goes from the list with the next one.
    again = dispatches.advance(
        Advance(
            late,
            REDISPATCH,
            times=Times(deadline_in_s=20.0),
            provided=Provided(any_generation=True),
        )
    )
    assert store.run(again).moved
    assert found(store, states=(State.FAILED,)) == [1, 0]
    store.run(
        dispatches.advance(
            Advance(
                late, FAILED, times=Times(retention_s=3600), provided=Provided(any_generation=True)
            )
        )
    )
    assert found(store, states=(State.FAILED,)) == [3, 1, 0]
    fill(raw, [Told(number=8, ends_as="queued")])
    last = Told(number=8, ends_as="queued").ref
    store.run(dispatches.advance(Advance(last, FAILED, times=Times(retention_s=3600))))
    assert raw.zrange("usher:failed:acme", 0, -1) == ["dsp_000008"]


def test_no_metadata_is_read(store: Ledger, raw: redis.Redis) -> None:
    tell(raw, numbers=range(1))
    (dispatch,) = store.run(queries.search(BOTH, limit=1)).dispatches
    assert dispatch.agent_metadata == ""
    assert raw.hget("usher:dispatch:dsp_000000", "agent_metadata") == "nobody's business"
