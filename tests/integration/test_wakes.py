"""When is the dispatcher woken for a session that somebody has asked for?"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
import redis
from flask.testing import FlaskClient

from dispatcher import keys, ledger
from dispatcher.quotas import AT_ONCE
from dispatcher.store import Ledger
from tests.clientsfile import Open, a_client, a_key
from tests.support import WAIT_S, eventually
from web.reply import REPLY, Reply

URL = "/api/v1/dispatches"
HEADERS = {"Authorization": "Bearer acme-key"}
ACME = a_client("acme", a_key("acme", "acme-key"))
GLOBEX = a_client("globex", a_key("globex", "globex-key"))


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """What a `Reply` needs; nothing is sent by it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def ask(http: FlaskClient, room: str, reply: Reply | None = None) -> str:
    """Ask for a session, as from a server that tells when it has answered; the dispatch's id."""
    answer = http.post(
        URL,
        json={"room_name": room},
        headers=HEADERS,
        environ_overrides={} if reply is None else {REPLY: reply},
    )
    assert answer.status_code == 200
    return str(answer.json["dispatch_id"])


def woken(raw: redis.Redis, queue: str = keys.DISPATCH_QUEUE) -> list[str]:
    """For which dispatches, in the order in which workers take the messages."""
    messages = raw.lrange(queue, 0, -1)[::-1]
    return [json.loads(json.loads(each)["body"])[1]["dispatch_id"] for each in messages]


async def test_after_the_answer_and_for_all_that_have_come_together_at_once(
    open_with: Open, raw: redis.Redis, connection: socket.socket
) -> None:
    http = open_with(ACME)
    replies = [Reply(connection) for _ in range(3)]
    ids = [ask(http, f"room-{number}", reply) for number, reply in enumerate(replies)]
    assert [raw.hget(keys.record(each), "state") for each in ids] == ["queued"] * 3
    assert woken(raw) == []
    assert woken(raw, keys.HELD_BACK) == ids

    evaluated = "cmdstat_eval"
    before = raw.info("commandstats").get(evaluated, {"calls": 0})["calls"]
    for reply in replies:
        for work in reply.afterwards:
            work()
    await eventually(lambda: woken(raw) == ids, within_s=WAIT_S)
    assert raw.info("commandstats")[evaluated]["calls"] == before + 1
    assert not raw.exists(keys.HELD_BACK)


async def test_in_the_order_of_their_records_whichever_is_answered_first(
    open_with: Open, raw: redis.Redis, connection: socket.socket
) -> None:
    """As of two processes, of which one has to wait for a core when it has written its record."""
    one, other = open_with(ACME), open_with(ACME)
    first_reply, second_reply = Reply(connection), Reply(connection)
    ids = [ask(one, "room-1", first_reply), ask(other, "room-2", second_reply)]
    for work in (*second_reply.afterwards, *first_reply.afterwards):
        work()
    await eventually(lambda: woken(raw) == ids)


async def test_by_the_sweeper_where_the_web_died_before_it_could(
    open_with: Open, raw: redis.Redis, store: Ledger, connection: socket.socket
) -> None:
    http = open_with(ACME)
    ids = [ask(http, f"room-{number}", Reply(connection)) for number in range(2)]
    assert store.run(ledger.claim_due(limit=9, push_s=30)) == []  # nothing is late yet
    assert woken(raw) == ids
    assert not raw.exists(keys.HELD_BACK)


async def test_at_once_where_nobody_tells_when_it_has_been_answered(
    open_with: Open, raw: redis.Redis
) -> None:
    dispatch_id = ask(open_with(ACME), "room-1")
    await eventually(lambda: woken(raw) == [dispatch_id])


async def test_not_for_the_live_one_of_that_room(open_with: Open, raw: redis.Redis) -> None:
    http = open_with(ACME)
    first = ask(http, "room-1")
    assert ask(http, "room-1") == first
    other = ask(http, "room-2")
    await eventually(lambda: woken(raw)[-1:] == [other])
    assert woken(raw) == [first, other]


async def test_not_for_one_whose_turn_comes_later(open_with: Open, raw: redis.Redis) -> None:
    """Of several clients, who asks for many at once shall not stand before the others."""
    http = open_with(ACME + GLOBEX)
    ids = [ask(http, f"room-{number}") for number in range(5 * AT_ONCE)]
    await eventually(lambda: woken(raw)[:AT_ONCE] == ids[:AT_ONCE])
    assert len(woken(raw)) < len(ids)
    assert raw.zcard(keys.DUE) == len(ids)  # the others are the sweeper's
