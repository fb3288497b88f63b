"""Does this release go on working beside a newer one, in a rolling upgrade?

Another release's processes write into the same Redis for as long as it takes to restart everything.
"""

from __future__ import annotations

import json

import redis

from dispatcher.domain.models import Dispatch
from dispatcher.ledger import dispatches, queries, reports, statistics
from dispatcher.ledger.client import Ledger
from tests.support.values import a_server, new_dispatch

NEW = {"of_a_newer_release": "x"}


def written_by_a_newer_release(store: Ledger, raw: redis.Redis) -> None:
    """A record, its timeline and an agent server's report, all with a field more."""
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    raw.hset("usher:dispatch:dsp_1", mapping=NEW)
    [event] = raw.lrange("usher:dispatch:dsp_1:timeline", 0, -1)
    raw.lset("usher:dispatch:dsp_1:timeline", 0, json.dumps({**json.loads(event), **NEW}))
    store.run(reports.report_agent_server(a_server(), ttl_s=600))
    [(name, report)] = raw.hgetall("usher:agent_servers").items()
    expires, _, text = report.partition(" ")
    raw.hset("usher:agent_servers", name, f"{expires} {json.dumps({**json.loads(text), **NEW})}")


def test_what_a_newer_release_writes_besides_is_left_out(store: Ledger, raw: redis.Redis) -> None:
    written_by_a_newer_release(store, raw)

    _, servers = store.run(reports.read_with_agent_servers("dsp_1"))
    dispatch = store.run(dispatches.read("dsp_1"))

    assert isinstance(dispatch, Dispatch)
    assert [event.event for event in dispatch.timeline] == ["queued"]
    assert servers == [a_server()] == store.run(reports.agent_servers())


def test_lists_streams_and_figures_go_on(store: Ledger, raw: redis.Redis) -> None:
    written_by_a_newer_release(store, raw)

    page = store.run(queries.page("acme", state=None, limit=10, after=None))
    assert [dispatch.dispatch_id for dispatch in page.dispatches] == ["dsp_1"]
    assert [event.event for event in store.run(queries.news("dsp_1", after=0)).events] == ["queued"]
    assert store.run(statistics.health()).agent_servers == (a_server(),)
