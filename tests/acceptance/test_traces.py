"""Can one session be followed through every process, by its trace and by the logs?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from tests.support.collector import Collector, GotSpan, collecting
from tests.support.stacks import RunningStack, running_stack

from .session import ENDPOINT, Caller, end_rooms, wait_for

pytestmark = pytest.mark.timeout(180)

NATIVE = re.compile(r"\[[-\d]+T[:\d]+Z (WARN|ERROR) +(livekit|libwebrtc|webrtc)")
PROGRAMS = ("web", "dispatch", "verify", "beat", "agent", "flower")
NOBODY = "agent-that-is-not-there"
DEADLINE_S = 20
CANARY = "canary-of-the-metadata"
CREATE = "livekit.RoomService/CreateRoom"
# Name, name of its parent, service.
ONE_ATTEMPT = {
    ("process dispatch_agent", "POST /api/v1/dispatches", "usher-dispatch"),
    (CREATE, "process dispatch_agent", "usher-dispatch"),
    ("offer", CREATE, "usher-agent"),
    ("claim", "offer", "usher-agent"),
    ("accept", "offer", "usher-agent"),
    ("join", CREATE, "usher-agent"),
    ("fence", "join", "usher-agent"),
    ("session", CREATE, "usher-agent"),
    ("room_connect", "session", "usher-agent"),
    ("process verify_dispatch", "POST /api/v1/dispatches", "usher-verify"),
}
A_SESSION = ONE_ATTEMPT | {("POST /api/v1/dispatches", "", "usher-web")}
WOKEN = "woken by the sweeper"  # as it may be, too, where all is slow
DELIVERY_FAILS = "traces cannot be delivered"


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A stack whose spans go to a collector of ours, and a session of it that finds no agent."""

    stack: RunningStack
    collector: Collector
    caller: Caller
    lost: str

    def join(self, *, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
        """Ask for a session and wait for its agent; the record, with what the request got."""
        response = self.caller.http.post(ENDPOINT, json=body, headers=headers)
        assert response.status_code == 200, response.text
        answer = response.json()
        self.caller.wait_for_state(answer["dispatch_id"], "joined", within_s=DEADLINE_S)
        record = self.caller.wait_until_agent_said_so(answer["dispatch_id"])
        return record | {"token": answer["participant_token"]}

    def join_at_once(self, **body: Any) -> dict[str, Any]:
        """A session that its first attempt has brought an agent: on a busy machine not all do."""
        for _ in range(5):
            record = self.join(**body)
            if record["generation"] == 1 and record["attempts"][0]["tries"] == 1:
                return record
            self.end(record)
        raise AssertionError("no session of five has got its agent at once")

    def end(self, record: dict[str, Any]) -> dict[str, Any]:
        end_rooms(self.stack, record["room_name"])
        return self.caller.wait_for_state(record["dispatch_id"], "ended", within_s=DEADLINE_S)

    def in_redis(self, dispatch_id: str) -> dict[str, str]:
        with redis.Redis.from_url(self.stack.redis_url, decode_responses=True) as client:
            found: dict[str, str] = client.hgetall(f"usher:dispatch:{dispatch_id}")
        return found

    def lines(self, *programs: str) -> list[dict[str, Any]]:
        """Every whole line that those have logged, each of which is JSON.

        But for what livekit-rtc's native library says by itself (docs/logs.md).
        """
        parsed = []
        for program in programs or PROGRAMS:
            for line in self.stack.log(program).rpartition("\n")[0].splitlines():
                if NATIVE.match(line):
                    continue
                try:
                    parsed.append(json.loads(line) | {"program": program})
                except ValueError:
                    raise AssertionError(f"{program} has logged {line!r}") from None
        return parsed

    def transitions(self, dispatch_id: str) -> list[dict[str, Any]]:
        return [
            line
            for line in self.lines()
            if line["logger"] == "dispatcher.observability.state_changes"
            and line["dispatch_id"] == dispatch_id
        ]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    directory = tmp_path_factory.mktemp("traced")
    lines = read_procfile(PROJECT_ROOT / "Procfile")
    lines["web"] = lines["web"].replace("--config", "--access-logfile - --config")
    procfile = directory / "Procfile"
    procfile.write_text("".join(f"{name}: {command}\n" for name, command in lines.items()))
    with collecting() as collector:
        environ = {
            **collector.environ,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "USHER_LOG_FORMAT": "json",
            "USHER_DEADLINE_S": str(DEADLINE_S),
            "USHER_AGENT_NAMES": f"session-agent-rag,{NOBODY}",
        }
        with running_stack(directory / "run", environ=environ, procfile=procfile) as stack:
            caller = Caller(stack)
            with caller.http:
                lost = caller.post(room_config={"agents": [{"agent_name": NOBODY}]})
                warm_up(stack, caller)
                yield Traced(
                    stack=stack, collector=collector, caller=caller, lost=lost["dispatch_id"]
                )


def warm_up(stack: RunningStack, caller: Caller) -> None:
    """Return when a session has had its agent: just started, a busy machine may take a minute."""
    for _ in range(5):
        answer = caller.post()
        record = caller.wait_for_state(
            answer["dispatch_id"], "joined", "failed", within_s=DEADLINE_S + 5
        )
        if record["state"] == "joined":
            end_rooms(stack, record["room_name"])
            caller.wait_for_state(answer["dispatch_id"], "ended", within_s=DEADLINE_S)
            return
    raise AssertionError(f"no session of five has found an agent: {record}")


def tree(spans: list[GotSpan]) -> set[tuple[str, str, str]]:
    names = {span.span_id: span.name for span in spans}
    return {(span.name, names.get(span.parent_id, ""), span.service) for span in spans}


def test_a_session_is_one_trace_from_the_request_to_its_end_without_a_secret(
    traced: Traced,
) -> None:
    agent = {"agent_name": "session-agent-rag", "metadata": CANARY}
    joined = traced.join_at_once(room_config={"agents": [agent]}, participant_metadata=CANARY)
    record = traced.end(joined)
    collector = traced.collector
    trace_id = collector.dispatch(record["dispatch_id"])

    spans = collector.wait(trace_id, lambda spans: tree(spans) >= A_SESSION)

    assert tree([span for span in spans if span.name != WOKEN]) == A_SESSION
    assert not [span for span in spans if span.failed]
    told = {event for span in spans for event in span.events}
    assert {event["event"] for event in record["timeline"]} - {"queued"} <= told
    by_name = {span.name: span for span in spans if span.name != WOKEN}
    assert {span.name: span.kind for span in spans if span.kind != "internal"} == {
        "POST /api/v1/dispatches": "server",
        "process dispatch_agent": "consumer",
        CREATE: "client",
        "offer": "consumer",
        "accept": "client",
        "process verify_dispatch": "consumer",
    }
    request = by_name["POST /api/v1/dispatches"].attributes
    assert request["http.response.status_code"] == 200
    assert request["usher.room"] == record["room_name"]
    for name in ("process dispatch_agent", "offer", "join", "session", "process verify_dispatch"):
        of = by_name[name].attributes
        assert of["usher.dispatch_id"] == record["dispatch_id"], name
        assert (of["usher.client_id"], of["usher.generation"]) == ("demo", 1), name
        assert (of["usher.room"], of["usher.agent_name"]) == (
            record["room_name"],
            "session-agent-rag",
        ), name
    sent = b"".join(collector.bodies)
    stack = traced.stack
    password = stack.redis_url.split(":")[2].split("@")[0]
    secret = (stack.api_key, stack.livekit_api_key, stack.livekit_api_secret, password)
    for text in (*secret, joined["token"], CANARY):
        assert text.encode() not in sent


def test_a_callers_own_trace_goes_on_and_one_that_is_not_sampled_is_not_kept(
    traced: Traced,
) -> None:
    trace_id, span_id, other = secrets.token_hex(16), secrets.token_hex(8), secrets.token_hex(16)
    kept = traced.join(headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
    left_out = traced.join(headers={"traceparent": f"00-{other}-{span_id}-00"})
    nonsense = traced.join(headers={"traceparent": "00-nonsense"})
    for record in (kept, left_out, nonsense):
        traced.end(record)

    spans = traced.collector.wait(trace_id, lambda spans: tree(spans) >= A_SESSION)
    assert [span.parent_id for span in spans if span.kind == "server"] == [span_id]
    own = traced.collector.dispatch(nonsense["dispatch_id"])
    traced.collector.wait(own, lambda spans: tree(spans) >= A_SESSION)
    # Those came later, so this one's would be there.
    assert traced.collector.trace(other) == []
    in_redis = traced.in_redis(left_out["dispatch_id"])
    assert in_redis["traceparent"].startswith(f"00-{other}-")
    assert in_redis["traceparent"].endswith("-00")


def test_a_session_that_is_sent_again_shows_both_attempts_in_one_trace_and_its_request_points_there(
    traced: Traced,
) -> None:
    record = traced.end(traced.join_at_once())
    time.sleep(1)  # a request that is refused before would be in the trace, too
    asked, span_id = secrets.token_hex(16), secrets.token_hex(8)
    traceparent = f"00-{asked}-{span_id}-01"
    answer = traced.caller.send_again(record["dispatch_id"], traceparent=traceparent)
    assert answer.status_code == 202, answer.text
    traced.caller.wait_for_state(record["dispatch_id"], "joined", within_s=DEADLINE_S)
    traced.end(traced.caller.wait_until_agent_said_so(record["dispatch_id"]))
    trace_id = traced.collector.dispatch(record["dispatch_id"])

    def both(spans: list[GotSpan]) -> bool:
        return [span.name for span in spans].count("session") >= 2

    spans = traced.collector.wait(trace_id, both)
    assert tree(spans) >= A_SESSION
    generations = [span.attributes["usher.generation"] for span in spans if span.name == "session"]
    assert generations[:2] == sorted({1, generations[1]})
    assert "redispatch" in {span.name for span in spans}
    (request,) = traced.collector.wait(asked, lambda spans: spans)
    assert request.name == "POST /api/v1/dispatches/<dispatch_id>/redispatch"
    assert request.links == (trace_id,)


@pytest.mark.long
def test_an_agent_that_dies_and_the_one_that_replaces_it_are_in_one_trace(traced: Traced) -> None:
    record = traced.join()
    line = next(
        line
        for line in traced.lines("agent")
        if line["event"] == "agent_connected" and line["dispatch_id"] == record["dispatch_id"]
    )
    trace_id = traced.collector.dispatch(record["dispatch_id"])
    traced.collector.wait(trace_id, lambda spans: "join" in {span.name for span in spans})
    os.kill(line["pid"], signal.SIGKILL)
    wait_for(
        "a second agent",
        lambda: traced.caller.record(record["dispatch_id"])["generation"] == 2 or None,
        within_s=15,
    )
    traced.caller.wait_for_state(record["dispatch_id"], "joined", within_s=DEADLINE_S)
    traced.end(traced.caller.wait_until_agent_said_so(record["dispatch_id"]))

    spans = traced.collector.wait(
        trace_id, lambda spans: "session" in {span.name for span in spans}
    )

    joins = [span.attributes["usher.generation"] for span in spans if span.name == "join"]
    assert joins == [1, 2]
    (looked_after,) = [span for span in spans if span.name == "process supervise"]
    assert "agent_lost" in looked_after.events


@pytest.mark.long
def test_a_trace_survives_the_loss_of_its_celery_message(traced: Traced) -> None:
    stack = traced.stack
    stack.supervisorctl("stop", "usher:dispatch")
    answer = traced.caller.post()
    with redis.Redis.from_url(stack.redis_url) as client:
        wait_for("the message", lambda: client.llen("dispatch") or None, within_s=5)
        client.delete("dispatch")
    stack.supervisorctl("start", "usher:dispatch")
    traced.caller.wait_for_state(answer["dispatch_id"], "joined", within_s=DEADLINE_S)
    traced.end(traced.caller.wait_until_agent_said_so(answer["dispatch_id"]))
    trace_id = traced.collector.dispatch(answer["dispatch_id"])

    spans = traced.collector.wait(trace_id, lambda spans: tree(spans) >= A_SESSION)

    assert WOKEN in {span.name for span in spans}


def test_every_line_is_json_and_every_event_of_a_record_is_logged_once(traced: Traced) -> None:
    record = traced.end(traced.join())
    assert traced.caller.send_again(record["dispatch_id"]).status_code == 202
    traced.caller.wait_for_state(record["dispatch_id"], "joined", within_s=DEADLINE_S)
    record = traced.end(traced.caller.wait_until_agent_said_so(record["dispatch_id"]))
    lost = traced.caller.wait_for_state(traced.lost, "failed", within_s=DEADLINE_S + 5)

    check_lines(traced, record)
    check_lines(traced, lost)
    (failed,) = [line for line in traced.transitions(traced.lost) if line["event"] == "failed"]
    assert (failed["level"], failed["reason"]) == ("warning", "no_agent_online")

    requests = [line for line in traced.lines("web") if line["logger"] == "gunicorn.access"]
    assert requests
    assert {"method", "path", "status", "took_ms"} <= requests[0].keys()
    loggers = {line["logger"].partition(".")[0] for line in traced.lines()}
    assert {"gunicorn", "celery", "livekit", "dispatcher", "worker_agent"} <= loggers


def check_lines(traced: Traced, record: dict[str, Any]) -> None:
    """One line for each event of the timeline, and each begins where the one before has ended."""
    dispatch_id = record["dispatch_id"]
    timeline = [(event["event"], event["generation"]) for event in record["timeline"]]

    def logged() -> Counter[tuple[str, int]]:
        lines = traced.transitions(dispatch_id)
        return Counter((line["event"], line["generation"]) for line in lines)

    with contextlib.suppress(AssertionError):  # the next line says what is missing
        wait_for("its lines", lambda: logged() == Counter(timeline) or None, within_s=10)
    assert logged() == Counter(timeline)
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in sorted(traced.transitions(dispatch_id), key=lambda line: str(line["timestamp"])):
        lines.setdefault((line["event"], line["generation"]), []).append(line)
    trace_id = traced.collector.dispatch(dispatch_id)
    state = ""
    for event in timeline:
        line = lines[event].pop(0)
        assert line["from_state"] == state, event
        state = line["to_state"]
        assert (line["client_id"], line["room"]) == ("demo", record["room_name"])
        assert line["trace_id"] == trace_id
    assert state == record["state"]


def test_a_receiver_that_hangs_does_no_harm_and_is_told_of_once(traced: Traced) -> None:
    collector = traced.collector
    collector.hangs = True
    try:
        record = traced.join()
        assert record["generation"] == 1
        for program in ("web", "dispatch", "verify", "agent"):
            wait_for(
                f"{program} says so", lambda of=program: complaints(traced, of) or None, within_s=20
            )
        asked = collector.asked
        again = traced.join()  # from four processes
        wait_for("more tries", lambda: collector.asked >= asked + 4 or None, within_s=30)
    finally:
        collector.hangs = False
        collector.closing.set()
        collector.closing = threading.Event()
    traced.end(record)
    traced.end(again)
    for program in ("dispatch", "verify", "agent"):
        assert len(complaints(traced, program)) == 1, program
    # One of each process that has served a request meanwhile.
    assert len(complaints(traced, "web")) <= len(traced.stack.pids("web")) - 1


def complaints(traced: Traced, program: str) -> list[str]:
    return [
        line["event"]
        for line in traced.lines(program)
        if line["event"].startswith(DELIVERY_FAILS) or line["logger"].startswith("opentelemetry")
    ]
