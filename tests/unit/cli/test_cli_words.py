"""What do the operator's commands make of what they have seen? Without any server."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

from dispatcher.cli import findings, ledger_findings, rendering, server_findings, shapes
from dispatcher.cli.command import Command, printable
from dispatcher.cli.findings import Finding, Status
from dispatcher.cli.options import Duration
from dispatcher.clients.models import Client, LiveKitCredentials
from dispatcher.clients.worker_settings import Service, WorkerSettings, services_of
from dispatcher.domain.metrics import Figures, Window, client_figures
from dispatcher.domain.models import State, TimelineEvent
from dispatcher.errors import (
    ConfigurationError,
    LedgerUnavailable,
    PermanentLiveKitError,
    TransientLiveKitError,
    UnknownDispatch,
)
from dispatcher.explain.explanation import explain
from dispatcher.ledger.async_client import ServerFacts
from dispatcher.ledger.statistics import Health
from dispatcher.selftest.counters import too_little
from dispatcher.selftest.results import Outcome, Result, junit, passed, spread
from tests.support.values import TIMINGS, a_dispatch, a_server

EVIL_ROOM = "room\x1b[2J\x07\n-1"
REDIS = ServerFacts(
    version="7.2.4",
    append_only=True,
    appendfsync="everysec",
    eviction="noeviction",
    used_bytes=1_000_000,
    max_bytes=0,
    evicted=0,
    replica=False,
)
WELL = Health(
    at_ms=1,
    queues={"dispatch": 0},
    workers=frozenset({"dispatch", "verify", "sweep", "webhooks"}),
    sweeper_alive=True,
)
AWAY = replace(WELL, sweeper_alive=False, sweeper_silent_ms=60_000)


def a_client(**changes: Any) -> Client:
    values: dict[str, Any] = {
        "client_id": "acme",
        "livekit": LiveKitCredentials(
            url="wss://user:hidden-password@livekit.example:7880/x",  # pragma: allowlist secret
            api_key="a-key",
            api_secret="the-secret",  # pragma: allowlist secret
        ),
        "agent_names": ("session-agent-rag",),
        "container": "",
        "deadline_s": 20.0,
    }
    return Client(**(values | changes))


def statuses(found: Any) -> dict[str, Status]:
    return {finding.name: finding.status for finding in found}


def test_names_cannot_play_with_the_terminal() -> None:
    dispatch = a_dispatch(
        room_name=EVIL_ROOM,
        timeline=(TimelineEvent(at_ms=1, event="queued", generation=1, detail={"by": "\x1b[31m"}),),
    )

    lines = [*rendering.record(dispatch, explain(dispatch, TIMINGS))]
    lines += rendering.summaries([dispatch])

    text = click.unstyle("\n".join(lines))
    assert "room\\x1b[2J\\x07\\x0a-1" in text
    assert not any(not c.isprintable() and c != "\n" for c in text)
    assert printable("a\u202eb") == "a\\x202eb"


def test_a_name_that_begins_like_our_own_colours_is_escaped_too() -> None:
    lines = rendering.summaries([a_dispatch(room_name="\x1b[31mroom")])

    assert "\\x1b[31mroom" in lines[1]


def test_what_a_client_gave_its_agent_is_not_in_any_shape() -> None:
    dispatch = a_dispatch(agent_metadata="private")

    assert "private" not in json.dumps([shapes.record(dispatch), shapes.summary(dispatch)])


def test_a_command_is_never_broken_over_two_lines() -> None:
    command = "`celery -A dispatcher dispatch redispatch dsp_1`"

    lines = rendering.wrapped("do", f"{'word ' * 15}{command} and more {'words ' * 20}")

    assert [line for line in lines if command in line]
    assert max(len(line) for line in lines) <= rendering.WIDTH


def test_bars_grow_with_their_stage() -> None:
    assert rendering.bar(0, 1000) == "▏"
    assert rendering.bar(500, 1000) == "█" * 20
    assert rendering.bar(1000, 1000) == "█" * 40
    assert rendering.bar(13, 1000) == "▌"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), ("2d", 172_800)]
)
def test_stretches_of_time_are_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "1 day", "-5m", "h", "5w"])
def test_what_is_no_stretch_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write it like"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (UnknownDispatch("no dispatch"), 3, "not_found"),
        (ConfigurationError("set REDIS_URL"), 5, "configuration"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_is_one_line_or_one_document(
    error: Exception, code: int, name: str, as_json: bool
) -> None:
    @click.command("failing", cls=Command)
    def failing(as_json: bool) -> None:
        raise error

    ran = CliRunner().invoke(failing, ["--json"] if as_json else [])

    assert ran.exit_code == code
    if as_json:
        assert json.loads(ran.stdout)["error"] == {
            "code": name,
            "message": str(error),
            "exit_code": code,
        }
    else:
        assert ran.stderr == f"Error: {error}\n"


def test_redis_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", f"rediss://user:{'hidden'}@redis.example:6380/1")

    @click.command("failing", cls=Command)
    def failing(as_json: bool) -> None:
        raise LedgerUnavailable("Redis did not answer")

    ran = CliRunner().invoke(failing, [])

    assert ran.exit_code == 4
    assert "redis.example:6380" in ran.stderr
    assert "hidden" not in ran.stderr


@pytest.mark.parametrize(
    ("changes", "name", "status"),
    [
        ({}, "redis durability", "ok"),
        ({"append_only": False}, "redis durability", "warn"),
        ({"appendfsync": "no"}, "redis durability", "warn"),
        ({"max_bytes": 2_000_000}, "redis memory", "ok"),
        ({"max_bytes": 1_100_000}, "redis memory", "warn"),
        ({"max_bytes": 9_000_000, "eviction": "allkeys-lru"}, "redis memory", "fail"),
        ({"evicted": 3}, "redis memory", "fail"),
        ({"replica": True}, "redis role", "fail"),
        ({"by_sentinel": True}, "redis replicas", "fail"),
        ({"by_sentinel": True, "replicas": 2, "min_replicas": 0}, "redis replicas", "warn"),
        ({"by_sentinel": True, "replicas": 2, "min_replicas": 1}, "redis replicas", "ok"),
        ({"by_sentinel": True, "replicas": 2}, "redis replicas", "ok"),
    ],
)
def test_what_redis_may_lose_is_found(changes: dict[str, Any], name: str, status: str) -> None:
    found = server_findings.of_redis("redis:6379", replace(REDIS, **changes), 0.4)

    assert statuses(found)[name] == status


@pytest.mark.parametrize(
    ("servers", "status"),
    [
        ([], "fail"),
        ([a_server()], "ok"),
        ([a_server(used_slots=4)], "warn"),
        ([a_server(draining=True)], "fail"),
        ([a_server(registered=False)], "fail"),
        ([a_server(client_id="globex")], "fail"),
        ([a_server(agent_name="other")], "fail"),
    ],
    ids=["none", "free", "full", "draining", "not registered", "another client's", "another name"],
)
def test_an_agent_without_a_server_with_room_is_found(servers: list[Any], status: str) -> None:
    [finding] = ledger_findings.of_agents(services_of([a_client()]), servers, frozenset())

    assert finding.status == status


def test_agents_that_report_nothing_are_not_missed() -> None:
    unfenced = frozenset({"session-agent-rag"})

    assert statuses(ledger_findings.of_agents(services_of([a_client()]), [], unfenced)) == {
        "agents acme/session-agent-rag": "ok"
    }


@pytest.mark.parametrize(
    ("health", "name", "status"),
    [
        (WELL, "sweeper", "ok"),
        (replace(WELL, sweeper_alive=False), "sweeper", "fail"),
        (replace(WELL, sweeper_alive=False, sweeper_silent_ms=11), "sweeper", "warn"),
        (replace(WELL, sweeper_alive=False, sweeper_silent_ms=60_000), "sweeper", "fail"),
        (replace(WELL, workers=frozenset({"dispatch", "sweep"})), "worker verify", "fail"),
        (replace(WELL, queues={"dispatch": 99}), "queue dispatch", "ok"),
        (replace(WELL, queues={"dispatch": 100}), "queue dispatch", "warn"),
        (replace(WELL, queues={"dispatch": 1000}), "queue dispatch", "fail"),
        (replace(WELL, overdue=3, oldest_overdue_ms=900), "overdue", "ok"),
        (replace(WELL, overdue=3, oldest_overdue_ms=6000), "overdue", "warn"),
        (replace(WELL, overdue=3, oldest_overdue_ms=20_000), "overdue", "fail"),
        (replace(WELL, waiting=1, oldest_waiting_ms=4000), "waiting", "warn"),
        (replace(WELL, parked=2), "parked", "warn"),
        (replace(WELL, data_losses=1), "data losses", "warn"),
    ],
)
def test_what_lies_about_is_found(health: Health, name: str, status: str) -> None:
    assert statuses(ledger_findings.of_health(health, webhooks=False))[name] == status


@pytest.mark.parametrize(
    ("health", "words", "advice"),
    [
        (replace(AWAY, sweeper_silent_ms=11), "sweeps in its place", "Start beat"),
        (replace(AWAY, sweeper_silent_ms=60_000), "does not stand in", "Restart the dispatch"),
        (
            replace(AWAY, workers=frozenset({"verify"}), queues={"sweep": 9}),
            "beat sends sweeps, and no worker takes them",
            "Start the dispatch worker",
        ),
        (
            replace(AWAY, workers=frozenset({"verify"}), queues={"sweep": 0}),
            "whether beat lives is not seen",
            "Start the dispatch worker",
        ),
    ],
    ids=["beat away", "and the worker hangs", "no dispatch worker", "neither"],
)
def test_what_is_to_be_started_is_what_is_away(health: Health, words: str, advice: str) -> None:
    found = {each.name: each for each in ledger_findings.of_health(health, webhooks=False)}

    assert words in found["sweeper"].message
    assert found["sweeper"].advice.startswith(advice)


RAG = Service(client_id="acme", agent_name="rag", default=True)
OTHER = Service(client_id="acme", agent_name="other")


@pytest.mark.parametrize(
    ("theirs", "status", "words"),
    [
        ([(RAG, OTHER), (RAG, OTHER)], "ok", "2 worker process(es), 2 agent(s)"),
        ([(RAG,), (RAG,)], "warn", "only here are acme/other"),
        ([(RAG, OTHER), (RAG,)], "warn", "only some of them have acme/other"),
    ],
    ids=["as here", "without one", "apart"],
)
def test_workers_that_are_set_up_otherwise_are_found(
    theirs: list[tuple[Service, ...]], status: str, words: str
) -> None:
    workers = [WorkerSettings(worker=f"vm-{n}", services=each) for n, each in enumerate(theirs)]

    [finding] = ledger_findings.of_workers_settings((RAG, OTHER), workers)

    assert (finding.status, words in finding.message) == (status, True), finding


def test_a_livekit_that_answers_no_worker_is_found() -> None:
    workers = [WorkerSettings(worker="vm-1", services=(RAG,))]

    assert statuses(ledger_findings.of_workers_livekit(workers, WELL)) == {
        "livekit acme for the workers": "fail"
    }
    well = replace(WELL, livekit=frozenset({"acme"}))
    assert statuses(ledger_findings.of_workers_livekit(workers, well)) == {}


@pytest.mark.parametrize(("failures", "status"), [(0, "ok"), (1, "warn")])
def test_many_failures_in_the_last_minutes_are_found(failures: int, status: str) -> None:
    counters = {"joined": 12, "sessions_joined": 9, "sessions_failed": failures}
    counters["failures:no_capacity"] = failures
    client = client_figures("acme", counters, {State.JOINED: 1})
    figures = Figures(at_ms=1, window=Window.MINUTES, since_ms=0, clients=(client,), agents=())

    [finding] = ledger_findings.of_figures(figures)

    assert finding.status == status
    assert ("no_capacity 1" in finding.message) is bool(failures)


def test_every_finding_that_is_not_in_order_says_what_to_do() -> None:
    ill = Health(at_ms=1, queues={"dispatch": 5000}, overdue=1, oldest_overdue_ms=99_000, waiting=1)
    client = a_client()
    found: list[Finding] = [
        *server_findings.of_redis("redis", replace(REDIS, append_only=False, evicted=1), 99.0),
        server_findings.of_clock("Redis", 5.0, allowed_s=1.0),
        server_findings.of_livekit(client, 900.0),
        server_findings.of_livekit_error(client, PermanentLiveKitError("401")),
        server_findings.of_livekit_error(
            client, TransientLiveKitError("TimeoutError", outcome_unknown=True)
        ),
        *ledger_findings.of_agents(services_of([client]), [], frozenset()),
        *ledger_findings.of_health(replace(ill, parked=1, data_losses=1), webhooks=True),
        ledger_findings.of_dead_webhooks(client, 3),
        *ledger_findings.of_workers_settings([], [WorkerSettings(worker="vm-1", services=(RAG,))]),
        *ledger_findings.of_workers_livekit([WorkerSettings(worker="vm-1", services=(RAG,))], ill),
    ]

    assert [f.name for f in found if f.status is not Status.OK and not f.advice] == []
    assert [f for f in found if "hidden-password" in f.message + f.advice] == []
    assert findings.verdict(found) is Status.FAIL
    assert findings.verdict([f for f in found if f.status is not Status.FAIL]) is Status.WARN
    assert findings.verdict([]) is Status.OK


RESULTS = [
    Result(name="one", outcome=Outcome.OK, message="fine", took_s=0.5),
    Result(name="two", outcome=Outcome.FAILED, message='bad <&"\x1b>', took_s=1.0),
    Result(name="three", outcome=Outcome.SKIPPED, message="not asked"),
]


def test_the_junit_file_can_be_read_whatever_a_message_has_in_it() -> None:
    suite = ElementTree.fromstring(junit(RESULTS, took_s=1.5))

    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    assert suite.find("testcase[@name='two']/failure").get("message") == 'bad <&"?>'


def test_a_test_of_nothing_is_not_passed() -> None:
    assert passed(RESULTS[:1])
    assert not passed(RESULTS)
    assert not passed(RESULTS[2:])
    assert not passed([])


def test_the_spread_of_values() -> None:
    assert spread([]) == {}
    assert spread([3.0]) == {"p50": 3.0, "p95": 3.0, "max": 3.0}
    assert spread([float(n) for n in range(1, 101)]) == {"p50": 51.0, "p95": 95.0, "max": 100.0}


def test_counters_that_rose_by_less_than_was_served_are_named() -> None:
    rose = Counter({"box-1": 8, "box-2": 1}) - Counter({"box-1": 5})

    assert too_little(rose, Counter({"box-1": 2, "box-2": 1})) == ""
    expected = Counter({"box-1": 4, "box-3": 1})
    assert too_little(rose, expected) == "box-1: 3 of 4, box-3: 0 of 1"
