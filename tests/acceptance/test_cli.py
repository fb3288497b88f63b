"""What can an operator see and do with `celery -A dispatcher dispatch ...` on a running stack?"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.acceptance.session import Caller, active_agents, wait_for
from tests.support.shell import Shell
from tests.support.stacks import RunningStack

pytestmark = pytest.mark.timeout(180)

NOWHERE = "redis://:a-password-of-redis@127.0.0.1:1/0"


@pytest.fixture(scope="module")
def shell(stack: RunningStack) -> Shell:
    # As the stack has it: what a client may use is a setting.
    return Shell(stack, USHER_AGENT_NAMES="session-agent-rag,agent-that-is-not-there")


@pytest.fixture
def joined(shell: Shell) -> Iterator[dict[str, Any]]:
    """A session that was sent from the shell and has its agent."""
    sent = shell.run("send", "--metadata", "of-its-caller", "--wait", "--json")
    assert sent.code == 0, sent.out + sent.err
    yield sent.json
    shell.run("cancel", sent.json["dispatch_id"])


def test_a_session_is_sent_shown_listed_and_cancelled(shell: Shell, stack: RunningStack) -> None:
    sent = shell.run("send", "--metadata", "of-its-caller", "--wait", "--json")
    assert sent.code == 0, sent.out + sent.err
    joined = sent.json
    dispatch_id, room = joined["dispatch_id"], joined["room_name"]
    assert (joined["new"], joined["state"]) == (True, "joined")
    assert joined["explanation"]["headline"].startswith("Joined: ")
    assert len(active_agents(stack, room)[room]) == 1

    shown = shell.run("show", dispatch_id)
    assert shown.code == 0
    for told in ("Joined: ", "queue_wait", room, "by=cli", "time_to_join_ms="):
        assert told in shown.out
    assert "of-its-caller" not in shown.out  # what a client gives its agent is not ours to show

    listed = shell.run("list", "--state", "joined", "--since", "1h", "--json").json
    assert dispatch_id in [dispatch["dispatch_id"] for dispatch in listed["dispatches"]]

    again = shell.run("redispatch", dispatch_id, "--json")
    assert (again.code, again.json["results"][0]["outcome"]) == (1, "refused")
    assert "would double it" in again.json["results"][0]["message"]

    cancelled = shell.run("cancel", dispatch_id, "--json")
    assert (cancelled.code, cancelled.json["cancelled"]) == (0, True)
    wait_for("no agent", lambda: active_agents(stack, room)[room] == [] or None, within_s=15)

    watched = shell.run("watch", dispatch_id, "--json")
    assert watched.code == 1
    assert "cancelled_by_client" in [line.get("event") for line in watched.lines]
    assert watched.lines[-1]["explanation"]["headline"].startswith("Cancelled: ")


def test_the_doctor_finds_a_whole_stack_in_order(shell: Shell, caller: Caller) -> None:
    examined = shell.run("doctor", "--json")

    checks = {check["name"]: check for check in examined.json["checks"]}
    failed = {name for name, check in checks.items() if check["status"] == "fail"}
    # Nobody serves that one, and its client's default agent is another one: a warning.
    assert checks["agents demo/agent-that-is-not-there"]["status"] == "warn"
    assert failed == set(), checks
    assert examined.code == 0
    for name in ("redis", "clock Redis", "livekit demo", "worker verify", "sweeper", "queue sweep"):
        assert checks[name]["status"] in ("ok", "warn"), checks[name]
    assert "agent server(s) online" in checks["agents demo/session-agent-rag"]["message"]
    assert any(name.startswith("clock LiveKit ws://") for name in checks)


def test_without_redis_there_is_one_clear_line(shell: Shell) -> None:
    plain = shell.run("list", environ={"REDIS_URL": NOWHERE})

    assert plain.code == 4
    assert plain.err.startswith("Error: Redis did not answer")
    assert "127.0.0.1:1" in plain.err
    assert "a-password-of-redis" not in plain.err
    assert len(plain.err.splitlines()) == 1


def test_what_is_not_there_has_an_exit_code_and_an_explanation(shell: Shell) -> None:
    unknown = shell.run("show", "dsp_x", "--json")

    assert (unknown.code, unknown.json["dispatch"]) == (3, None)
    assert unknown.json["explanation"]["headline"].startswith("Unknown: ")


def test_the_self_test_passes_and_leaves_nothing_behind(
    shell: Shell, caller: Caller, tmp_path: Path
) -> None:
    file = tmp_path / "selftest.xml"
    options = ("--concurrency", "2", "--deadline", "60s", "--junit", str(file))
    tested = shell.run("selftest", *options, "--json", within_s=150)

    checks = {check["name"]: check for check in tested.json["checks"]}
    assert tested.code == 0, what_went_wrong(checks)
    assert [check["outcome"] for check in checks.values()] == ["ok"] * 7, what_went_wrong(checks)
    assert checks["2 at once"]["numbers"]["joined"] == 2
    suite = ElementTree.parse(file).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("7", "0", "0")
    assert left_of_selftests(caller) == []


def what_went_wrong(checks: dict[str, Any]) -> list[str]:
    return [f"{c['name']}: {c['message']}" for c in checks.values() if c["outcome"] != "ok"]


def left_of_selftests(caller: Caller) -> list[str]:
    """Self-tests' dispatches that have not ended."""
    newest = caller.http.get("/api/v1/dispatches?limit=100").json()["dispatches"]
    ended = ("cancelled", "failed", "ended")
    return [
        dispatch["dispatch_id"]
        for dispatch in newest
        if dispatch["room_name"].startswith("usher-selftest-") and dispatch["state"] not in ended
    ]


@pytest.mark.long
def test_errors_are_json_too(shell: Shell) -> None:
    away = shell.run("show", "dsp_x", "--json", environ={"REDIS_URL": NOWHERE})
    assert away.json["error"]["code"] == "redis_unreachable"
    assert (away.code, away.json["error"]["exit_code"]) == (4, 4)

    wrong = shell.run("list", "--since", "yesterday", "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (2, "usage")


@pytest.mark.long
def test_a_self_test_that_is_interrupted_leaves_nothing_behind(
    shell: Shell, caller: Caller
) -> None:
    with shell.started("selftest", "--concurrency", "6") as process:
        assert process.stderr is not None
        for line in process.stderr:  # its progress
            if "6 at once ..." in line:
                break
        time.sleep(0.3)  # some of them have been asked for
        process.send_signal(signal.SIGINT)
        ran = shell.end(process, within_s=60)

    assert ran.code == 130
    assert "INTERRUPTED" in ran.out
    assert left_of_selftests(caller) == []


@pytest.mark.long
def test_a_self_test_says_what_has_failed_and_leaves_nothing_behind(
    shell: Shell, caller: Caller
) -> None:
    options = ("--agent", "agent-that-is-not-there", "--deadline", "3s", "--concurrency", "2")
    tested = shell.run("selftest", *options, "--json", within_s=120)

    assert tested.code == 1
    checks = {check["name"]: check for check in tested.json["checks"]}
    assert (
        "no agent server for agent 'agent-that-is-not-there'"
        in (checks["single dispatch"]["message"])
    )
    assert "0 of 2 joined" in checks["2 at once"]["message"]
    assert checks["agent seen in the room"]["outcome"] == "skipped"
    assert left_of_selftests(caller) == []


@pytest.mark.long
def test_a_self_test_without_a_key_says_where_it_is_read_from(shell: Shell) -> None:
    tested = shell.run("selftest", environ={"API_KEY": "", "USHER_API_KEY": ""})

    assert tested.code == 5
    assert "USHER_API_KEY" in tested.err


@pytest.mark.long
def test_all_that_failed_lately_is_sent_again_but_what_would_double_is_not(
    shell: Shell, stack: RunningStack, caller: Caller
) -> None:
    nobody = {"room_config": {"agents": [{"agent_name": "agent-that-is-not-there"}]}}
    answers = [caller.post(**nobody), caller.post(**nobody)]
    rooms = [answer["room_name"] for answer in answers]
    for answer in answers:
        caller.wait_for_state(answer["dispatch_id"], "failed", within_s=25)
    newer = caller.post(room_name=rooms[1], **nobody)  # the second room is another dispatch's now

    dry = shell.run("redispatch", "--failed", "--since", "2m", "--dry-run", "--json")
    outcomes = {each["dispatch_id"]: each["outcome"] for each in dry.json["results"]}
    assert outcomes[answers[0]["dispatch_id"]] == "would_send"
    assert outcomes[answers[1]["dispatch_id"]] == "refused"
    assert caller.record(answers[0]["dispatch_id"])["state"] == "failed"

    nobody_there = shell.run("redispatch", "--failed", "--since", "2m", "--with-people", "--json")
    assert {each["outcome"] for each in nobody_there.json["results"]} == {"refused"}

    done = shell.run("redispatch", "--failed", "--since", "2m", "--json")
    outcomes = {each["dispatch_id"]: each["outcome"] for each in done.json["results"]}
    assert outcomes[answers[0]["dispatch_id"]] == "sent"
    assert outcomes[answers[1]["dispatch_id"]] == "refused"
    assert done.code == 1
    record = caller.record(answers[0]["dispatch_id"])
    assert (record["state"], record["generation"]) != ("failed", 1)
    assert "redispatch" in [event["event"] for event in record["timeline"]]
    for dispatch_id in (answers[0]["dispatch_id"], newer["dispatch_id"]):
        shell.run("cancel", dispatch_id)


@pytest.mark.long
def test_everything_that_happens_can_be_watched(shell: Shell, caller: Caller) -> None:
    with shell.started("watch", "--json", "--for", "30s") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("watching")
        answer = caller.post()
        record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=20)
        ran = shell.end(process, within_s=60)

    assert ran.code == 0
    own = [line for line in ran.lines if line["dispatch_id"] == answer["dispatch_id"]]
    assert "joined" in [line["event"] for line in own]
    assert {line["room_name"] for line in own} == {record["room_name"]}
    shell.run("cancel", answer["dispatch_id"])


@pytest.mark.long
def test_agents_and_stats_have_what_the_stack_has(shell: Shell, joined: dict[str, Any]) -> None:
    agents = shell.run("agents", "--json").json["agent_servers"]
    assert [server["agent_name"] for server in agents if server["online"]] == ["session-agent-rag"]
    assert agents[0]["used_slots"] >= 1
    assert shell.run("agents", "--agent", "agent-that-is-not-there").code == 1

    counted = shell.run("stats", "--window", "5m", "--json").json
    [client] = counted["clients"]
    assert client["joined"] >= 1
    assert client["histograms"]["time_to_join"]["total"] >= 1
    [agent] = [each for each in counted["agents"] if each["client_id"] == "demo"]
    assert agent["accepts"] + agent["rejects"] == agent["requests"]


@pytest.mark.long
def test_help_and_completion_of_every_command(shell: Shell, joined: dict[str, Any]) -> None:
    for command in ("send", "show", "list", "watch", "redispatch", "cancel", "stats", "agents",
                    "doctor", "selftest"):  # fmt: skip
        told = shell.run(command, "--help")
        assert told.code == 0
        assert f"celery -A dispatcher dispatch {command}" in " ".join(told.out.split())
        assert "--json" in told.out

    def completed(words: str, at: int) -> list[str]:
        environ = {
            "_CELERY_COMPLETE": "bash_complete",
            "COMP_WORDS": f"celery -A dispatcher dispatch {words}",
            "COMP_CWORD": str(at),
        }
        return [line.partition(",")[2] for line in shell.run(environ=environ).out.splitlines()]

    assert joined["dispatch_id"] in completed("show dsp_", 5)
    assert completed("list --state jo", 6) == ["joined"]
    assert completed("list --client ", 6) == ["demo"]


@pytest.mark.long
async def test_the_doctor_names_what_is_missing_in_time(
    shell: Shell, stack: RunningStack, caller: Caller
) -> None:
    def examined(**environ: str) -> dict[str, Any]:
        ran = shell.run("doctor", "--json", environ=environ)
        assert ran.code == 1
        return {check["name"]: check for check in ran.json["checks"]}

    wrong = examined(LIVEKIT_API_SECRET="x" * 40)
    assert "Correct this client's" in wrong["livekit demo"]["advice"]
    away = examined(LIVEKIT_URL="ws://127.0.0.1:1")
    assert away["livekit demo"]["status"] == "fail"
    assert "cannot be reached" in away["livekit demo"]["message"]
    assert away["worker dispatch"]["status"] == "ok"

    await asyncio.to_thread(stack.supervisorctl, "stop", "usher:verify", "usher:beat")
    try:
        await asyncio.sleep(7)  # a part counts as alive for 6 s
        missing = await asyncio.to_thread(examined)
    finally:
        await asyncio.to_thread(stack.supervisorctl, "start", "usher:verify", "usher:beat")
    assert missing["worker verify"]["status"] == "fail"
    assert missing["worker dispatch"]["status"] == "ok"
    wait_for(
        "everything ready",
        lambda: caller.http.get("/readyz").json()["not_ready"] == [] or None,
        within_s=30,
    )
