"""Does Usher say what is so, and nothing secret, while parts of it are away or are refused?

One stack, whose operator's shell has its `stack.env` and no more: not the workers' agent names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.support.shell import Shell
from tests.support.stacks import RunningStack, running_stack

from .session import Caller, wait_for
from .test_outages import stopped
from .test_secrets import PROGRAMS, leaks

pytestmark = [pytest.mark.apart, pytest.mark.timeout(180)]

NOBODYS = "agent-that-is-not-there"
# A system prompt, say, or a customer's record.
METADATA = "c4nary-of-the-agents-metadata"
ANOTHER_SECRET = "a-secret-that-livekit-has-been-given-since"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    environ = {"USHER_AGENT_NAMES": f"session-agent-rag,{NOBODYS}"}
    with running_stack(tmp_path_factory.mktemp("true-words"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


@pytest.fixture
def examined(stack: RunningStack) -> Callable[[], tuple[int, dict[str, dict[str, str]]]]:
    """What `doctor` finds, by name, and its exit code."""
    shell = Shell(stack)

    def run() -> tuple[int, dict[str, dict[str, str]]]:
        ran = shell.run("doctor", "--json")
        return ran.code, {check["name"]: check for check in ran.json["checks"]}

    return run


def readiness(caller: Caller) -> dict[str, Any]:
    answer: dict[str, Any] = caller.http.get("/readyz").json()
    return answer


def test_an_agent_name_that_only_the_workers_know_is_not_overlooked(
    examined: Callable[[], Any], caller: Caller
) -> None:
    code, checks = examined()

    assert code == 0, checks
    assert checks[f"agents demo/{NOBODYS}"]["status"] == "warn"
    settings = checks["settings of the workers"]
    assert (settings["status"], f"demo/{NOBODYS}" in settings["message"]) == ("warn", True)
    ready = {"status": "ready", "not_ready": [], "agents_without_server": [NOBODYS]}
    wait_for("readiness", lambda: readiness(caller) == ready or None, within_s=30)


def test_with_beat_away_a_worker_sweeps_and_that_is_no_failure(
    examined: Callable[[], Any], stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "beat"):
        wait_for("it", lambda: readiness(caller)["not_ready"] == ["sweeper"] or None, within_s=30)
        code, checks = examined()

    assert code == 0, checks
    sweeper = checks["sweeper"]
    assert sweeper["status"] == "warn"
    assert "a dispatch worker sweeps in its place" in sweeper["message"]
    assert "Start beat" in sweeper["advice"]
    wait_for("beat", lambda: readiness(caller)["not_ready"] == [] or None, within_s=30)


def test_with_the_dispatch_worker_away_nobody_is_told_to_start_beat(
    examined: Callable[[], Any], stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "dispatch"):
        wait_for("it", lambda: "sweeper" in readiness(caller)["not_ready"] or None, within_s=30)
        code, checks = examined()

    assert code == 1
    assert checks["worker dispatch"]["status"] == checks["sweeper"]["status"] == "fail"
    assert "beat sends sweeps, and no worker takes them" in checks["sweeper"]["message"]
    assert "Start the dispatch worker" in checks["sweeper"]["advice"]
    assert "beat" not in checks["sweeper"]["advice"]
    wait_for("it again", lambda: readiness(caller)["not_ready"] == [] or None, within_s=30)


def test_when_livekits_secret_is_changed_that_is_told_and_no_token_is(
    examined: Callable[[], Any], stack: RunningStack, caller: Caller
) -> None:
    """Every connection fails after it: the agent server's, a job's, the workers', a caller's."""
    wanted = {"room_config": {"agents": [{"metadata": METADATA}]}}
    there = caller.post(**wanted)
    caller.wait_for_state(there["dispatch_id"], "joined", within_s=30)
    config = stack.run_dir / "livekit.yaml"
    config.write_text(config.read_text().replace(stack.livekit_api_secret, ANOTHER_SECRET))
    stack.supervisorctl("restart", "servers:livekit")
    wait_for(
        "the agent server's absence",
        lambda: "agent:session-agent-rag" in readiness(caller)["not_ready"] or None,
        within_s=30,
    )

    refused = caller.post(**wanted)
    record = caller.wait_for_state(refused["dispatch_id"], "failed", within_s=10)
    assert record["failure_reason"] == "livekit_refused"
    told = Shell(stack).run("show", refused["dispatch_id"])
    assert "the API key or secret is wrong" in " ".join(told.out.split())

    def doctors_word() -> tuple[int, str] | None:
        code, checks = examined()
        found = checks.get("livekit demo for the workers")
        return (code, found["status"]) if found else None

    # The workers' sign that LiveKit answers them holds for some seconds more.
    assert wait_for("doctor", doctors_word, within_s=40) == (1, "fail")
    wait_for(
        "its second try",
        lambda: stack.log("agent").count("failed to connect to livekit") > 1 or None,
        within_s=30,
    )
    with stopped(stack, "redis"), suppress(httpx.HTTPError):
        caller.http.post("/api/v1/dispatches", json=wanted)
        wait_for(
            "its saying so",
            lambda: "cannot report to Redis" in stack.log("agent") or None,
            within_s=10,
        )
    secrets = {
        "LiveKit's secret": stack.livekit_api_secret,
        "API key": stack.api_key,
        "Flower's password": stack.flower_password,
        "operator's password": stack.operator_password,
        "the agent's metadata": METADATA,
    }
    logs = {name: stack.log(name) for name in PROGRAMS}
    lines = [(name, line) for name, text in logs.items() for line in text.splitlines()]
    assert [(name, line) for name, line in lines if leaks(secrets, name, line)] == []
    assert re.search(r"401", logs["agent"]), "what has happened is still told"
