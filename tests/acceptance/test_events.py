"""Does a page hear what happens to its dispatch while it happens, at no one else's cost?"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from devstack import PROJECT_ROOT
from tests.conftest import free_port, wait_until_answers
from tests.support.clientsfile import a_client, a_key, digest
from tests.support.stacks import RunningStack

from .session import ENDPOINT, Caller, active_agents, end_rooms, wait_for
from .streams import follow
from .test_http_contract import assert_problem

NOBODYS_AGENT = {"room_config": {"agents": [{"agent_name": "agent-that-is-not-there"}]}}
STREAMS = 200
KEY = "key-of-the-only-client"


def test_a_page_hears_of_every_event_as_it_happens_until_the_end(
    stack: RunningStack, caller: Caller
) -> None:
    # By pub/sub; a poll alone would be late by 0.75 s on average. Up to three times: what else
    # runs on a machine of two cores only ever adds to a time.
    late_ms: list[float] = []
    while len(late_ms) < 3 and min(late_ms, default=300) >= 300:
        late_ms.append(_heard_late_ms(stack, caller))
    assert min(late_ms) < 300, late_ms


def _heard_late_ms(stack: RunningStack, caller: Caller) -> float:
    """How late a page hears of an event, in the median of a whole session's."""
    answer = caller.post()
    late_ms = []
    with follow(answer["events_url"], answer["participant_token"]) as events:
        first = next(events)
        assert (first.event, first.data["dispatch_id"]) == ("snapshot", answer["dispatch_id"])
        told = [event["event"] for event in first.data["timeline"]]
        assert first.id == len(told)
        for sent in events:
            if sent.event == "end":
                break
            if sent.event == "timeline":
                told.append(sent.data["event"])
                assert sent.id == len(told)
                late_ms.append(time.time() * 1000 - sent.data["at_ms"])
                if sent.data["event"] == "joined":
                    assert sent.data["state"] == "joined"
                    end_rooms(stack, answer["room_name"])
        assert sent.data == caller.record(answer["dispatch_id"])
        assert sent.data["state"] == "ended"
        assert told == [event["event"] for event in sent.data["timeline"]]
        assert list(events) == []
    return sorted(late_ms)[len(late_ms) // 2]


def test_a_lost_connection_goes_on_where_it_was(stack: RunningStack, caller: Caller) -> None:
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    end_rooms(stack, answer["room_name"])
    record = caller.wait_for_state(answer["dispatch_id"], "ended", within_s=30)
    whole = len(record["timeline"])

    with follow(answer["events_url"], stack.api_key, last_event_id=2) as events:
        found = list(events)

    assert [sent.id for sent in found] == [*range(3, whole + 1), whole]
    assert [sent.data["event"] for sent in found[:-1]] == [
        event["event"] for event in record["timeline"][2:]
    ]
    assert found[-1].event == "end"
    headers = {"Last-Event-ID": str(whole)}
    assert caller.http.get(answer["events_url"], headers=headers).status_code == 204
    for nonsense in ("999", "x", "-1"):
        response = caller.http.get(answer["events_url"], headers={"Last-Event-ID": nonsense})
        assert "event: snapshot" in response.text


@pytest.mark.long  # the deadline, 20 s
def test_a_page_that_waits_in_vain_hears_that_it_is_connected_and_at_the_end_the_true_reason(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post(**NOBODYS_AGENT)
    quiet_s: list[float] = []
    with follow(answer["events_url"], answer["participant_token"]) as events:
        record = caller.wait_for_state(answer["dispatch_id"], "waiting", "failed", within_s=30)
        assert record["failure_reason"] == "no_agent_online"
        heard = time.monotonic()
        for sent in events:
            if not sent.event:
                quiet_s.append(time.monotonic() - heard)
            heard = time.monotonic()
            if sent.event == "end":
                break
    assert quiet_s
    assert max(quiet_s) < 15.5
    record = caller.record(answer["dispatch_id"])
    assert sent.data == record
    assert (record["state"], record["failure_reason"]) == ("failed", "no_agent_online")
    assert "start one" in record["failure_message"]
    assert record["timeline"][-1]["at_ms"] <= record["deadline_at_ms"]
    assert active_agents(stack, answer["room_name"]) == {answer["room_name"]: []}


def test_only_the_dispatchs_own_client_and_participant_may_follow_it(
    stack: RunningStack, caller: Caller
) -> None:
    mine, other = caller.post(**NOBODYS_AGENT), caller.post(**NOBODYS_AGENT)
    for credential in ("usk_wrong", other["participant_token"]):
        headers = {"Authorization": f"Bearer {credential}"}
        assert_problem(httpx.get(mine["events_url"], headers=headers, trust_env=False), 401)
    token = mine["participant_token"]
    in_the_url = httpx.get(f"{mine['events_url']}?access_token={token}", trust_env=False)
    assert_problem(in_the_url, 401)
    assert_problem(caller.http.get(f"{ENDPOINT}/dsp_nobody/events"), 404)
    head = caller.http.head(mine["events_url"])
    assert (head.status_code, head.text) == (200, "")
    for answer in (mine, other):
        caller.http.delete(answer["status_url"])


@contextlib.contextmanager
def open_streams(url: str, credential: str, count: int) -> Iterator[list[socket.socket]]:
    """So many streams, each of which has brought its snapshot."""
    parts = urlsplit(url)
    request = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {credential}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
            stack.enter_context(connection)
            connection.sendall(request.encode())
            opened.append(connection)
        for connection in opened:
            received = b""
            while b"event: snapshot" not in received:
                chunk = connection.recv(65536)
                received += chunk
                assert chunk, received
                assert received.startswith(b"HTTP/1.1 200 "), received
        yield opened


def _threads_and_files(stack: RunningStack) -> tuple[int, int]:
    processes = [psutil.Process(pid) for pid in stack.pids("web")]
    return sum(p.num_threads() for p in processes), sum(p.num_fds() for p in processes)


def test_200_open_streams_hold_nobody_up_and_leave_nothing_behind(
    stack: RunningStack, caller: Caller
) -> None:
    # With its agent there, so that no deadline ends it on a machine that is slow to open so many.
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    _, files_before = _threads_and_files(stack)
    with open_streams(answer["events_url"], answer["participant_token"], STREAMS) as opened:
        threads, _ = _threads_and_files(stack)
        assert threads < 50  # two processes: 8 of gunicorn's each, and some of our own
        took_s = []
        for _ in range(20):
            started = time.perf_counter()
            again = caller.post(room_name=answer["room_name"])
            took_s.append(time.perf_counter() - started)
            assert again["dispatch_id"] == answer["dispatch_id"]
        print(f"POST beside {STREAMS} streams: {[round(s * 1000) for s in sorted(took_s)]} ms")
        assert max(took_s) < 1
        started = time.perf_counter()
        caller.http.delete(answer["status_url"])
        for connection in opened:
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += (chunk := connection.recv(65536))
                assert chunk, received
            assert b"event: end" in received
        print(f"all ended {time.perf_counter() - started:.2f} s after the cancelling")
        assert time.perf_counter() - started < 15
    wait_for(
        "the connections' end",
        lambda: _threads_and_files(stack)[1] <= files_before + 30 or None,
        within_s=30,
    )


@contextlib.contextmanager
def web_alone(redis_url: str, directory: Path, **more: str) -> Iterator[httpx.Client]:
    """One process of the web that has four places for streams, and nobody who dispatches.

    `more` are settings of the process.
    """
    url = f"http://127.0.0.1:{free_port()}"
    environ = {
        "REDIS_URL": redis_url,
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "secret" * 8,
        "USHER_API_KEY_SHA256": digest(KEY),
        "USHER_AGENT_NAMES": "session-agent-rag",
        "USHER_WEB_PORT": url.rpartition(":")[2],
        "USHER_WEB_WORKERS": "1",
        "USHER_STREAMS": "4",
        "USHER_STREAMS_PER_CLIENT": "3",
        **more,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:web.gunicorn_conf"]
    with (directory / "web.log").open("wb") as log:
        master = subprocess.Popen(
            [*command, "web:create_app()"],
            cwd=PROJECT_ROOT,
            env={**os.environ, **environ},
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_answers(f"{url}/healthz")
            headers = {"Authorization": f"Bearer {KEY}"}
            with httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False) as web:
                yield web
        finally:
            master.terminate()
            master.wait(timeout=30)


def test_a_page_that_goes_away_gives_its_place_back_and_too_many_are_refused(
    redis_url: str, tmp_path: Path
) -> None:
    with web_alone(redis_url, tmp_path) as web:
        url = web.post(ENDPOINT, json={}).json()["events_url"]

        def three_and_no_more() -> bool | None:
            with contextlib.suppress(AssertionError), open_streams(url, KEY, 3):
                refused = web.get(url)
                problem = assert_problem(refused, 429)
                assert int(refused.headers["retry-after"]) > 0
                return bool(problem)
            return None

        for _ in range(3):
            wait_for("three free places", three_and_no_more, within_s=30)


def test_one_token_and_one_client_leave_places_to_the_others(
    redis_url: str, tmp_path: Path
) -> None:
    clients = tmp_path / "clients.toml"
    secrets = {f"{name.upper()}_SECRET": f"{name}-secret" * 4 for name in ("acme", "globex")}
    clients.write_text(
        "".join(
            a_client(name, a_key(name, f"{name}-key"), secret=f"env:{name.upper()}_SECRET")
            for name in ("acme", "globex")
        )
    )
    more = {
        **secrets,
        "USHER_CLIENTS_FILE": str(clients),
        "USHER_STREAMS": "9",
        "USHER_STREAMS_PER_CLIENT": "9",
        "USHER_STREAMS_PER_DISPATCH": "2",
    }
    with web_alone(redis_url, tmp_path, **more) as web, contextlib.ExitStack() as opened:

        def one_of(client: str) -> dict[str, str]:
            made = web.post(ENDPOINT, json={}, headers={"Authorization": f"Bearer {client}-key"})
            answer: dict[str, str] = made.json()
            return answer

        def follows(answer: dict[str, str], count: int) -> None:
            token = answer["participant_token"]
            opened.enter_context(open_streams(answer["events_url"], token, count))

        def refused(answer: dict[str, str]) -> str:
            headers = {"Authorization": f"Bearer {answer['participant_token']}"}
            response = web.get(answer["events_url"], headers=headers)
            return str(assert_problem(response, 429)["detail"])

        first = one_of("acme")
        follows(first, 2)
        assert "of this dispatch" in refused(first)
        # Of nine places acme may have as many as are free.
        follows(one_of("acme"), 2)
        last = one_of("acme")
        follows(last, 1)
        assert "of yours" in refused(last)
        follows(one_of("globex"), 2)
        assert "of yours" in refused(one_of("globex"))
