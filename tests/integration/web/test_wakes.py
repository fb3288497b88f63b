"""The dispatcher is woken for a new session in the step that writes its record."""

from __future__ import annotations

import json

import redis
from flask.testing import FlaskClient

from dispatcher.domain.quotas import AT_ONCE
from dispatcher.ledger import keys
from tests.support.clientsfile import Open, a_client, a_key

URL = "/api/v1/dispatches"
HEADERS = {"Authorization": "Bearer acme-key"}
ACME = a_client("acme", a_key("acme", "acme-key"))
GLOBEX = a_client("globex", a_key("globex", "globex-key"))


def ask(http: FlaskClient, room: str) -> str:
    """Ask for a session; the dispatch's id."""
    answer = http.post(URL, json={"room_name": room}, headers=HEADERS)
    assert answer.status_code == 200
    return str(answer.json["dispatch_id"])


def woken(raw: redis.Redis) -> list[str]:
    """For which dispatches, in the order in which workers take the messages."""
    messages = raw.lrange(keys.DISPATCH_QUEUE, 0, -1)[::-1]
    return [json.loads(json.loads(each)["body"])[1]["dispatch_id"] for each in messages]


def test_in_the_order_of_their_records_by_whichever_process(
    open_with: Open, raw: redis.Redis
) -> None:
    one, other = open_with(ACME), open_with(ACME)
    ids = [ask(http, f"room-{number}") for number, http in enumerate((one, other, one))]
    assert woken(raw) == ids
    assert [raw.hget(keys.record(each), "state") for each in ids] == ["queued"] * 3


def test_not_for_the_live_one_of_that_room(open_with: Open, raw: redis.Redis) -> None:
    http = open_with(ACME)
    first = ask(http, "room-1")
    assert ask(http, "room-1") == first
    other = ask(http, "room-2")
    assert woken(raw) == [first, other]


def test_not_for_one_whose_turn_comes_later(open_with: Open, raw: redis.Redis) -> None:
    """Of several clients, one that asks for many at once shall not stand before the others."""
    http = open_with(ACME + GLOBEX)
    ids = [ask(http, f"room-{number}") for number in range(5 * AT_ONCE)]
    assert woken(raw)[:AT_ONCE] == ids[:AT_ONCE]
    assert len(woken(raw)) < len(ids)
    assert raw.zcard(keys.DUE) == len(ids)  # the others are the sweeper's
