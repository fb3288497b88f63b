"""Does every process start and live while Redis answers with errors, and does all resume then?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack import PROJECT_ROOT
from tests.support.refusing import REFUSALS, refusing
from tests.support.shell import Shell
from tests.support.stacks import RunningStack, running_stack

from .stacks import ENDPOINT, Caller, active_agents, kill, wait_for, wait_ready

pytestmark = [pytest.mark.apart, pytest.mark.timeout(300)]

# A Redis that is BUSY uses a processor, and five processes start beside it.
STARTS_WITHIN_S = 90
KILLED = ("dispatch", "verify", "beat", "flower", "agent")
REDIS_EXIT = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of this module's own."""
    with running_stack(tmp_path_factory.mktemp("refusing")) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    with (caller := Caller(stack)).http:
        yield caller


def asked(stack: RunningStack, room: str) -> str:
    """The state in which a session is promised, by a connection of its own, within a second."""
    with httpx.Client(trust_env=False, verify=False, timeout=10) as http:  # plain HTTP
        began = time.monotonic()
        response = http.post(
            stack.web_url + ENDPOINT,
            json={"room_name": room},
            headers={"Authorization": f"Bearer {stack.api_key}"},
        )
        took_s = time.monotonic() - began
    assert response.status_code == 200, response.text
    assert took_s < 1.0
    return str(response.json()["status"])


def started_again(stack: RunningStack, before: dict[str, int]) -> dict[str, int]:
    """The processes that have taken the killed ones' places."""

    def look() -> dict[str, int] | None:
        now = {name: next(iter(stack.pids(name)), 0) for name in before}
        return now if all(pid not in (0, before[name]) for name, pid in now.items()) else None

    return wait_for("all of them again", look, within_s=STARTS_WITHIN_S)


# LOADING after the others failed once of two times, and alone did not: it wants a look by itself.
LOADING = pytest.param("LOADING", marks=pytest.mark.long)


@pytest.mark.parametrize("word", [LOADING if word == "LOADING" else word for word in REFUSALS])
def test_all_processes_start_and_live_and_the_web_delegates(
    word: str, stack: RunningStack, caller: Caller, tmp_path: Path
) -> None:
    wait_ready(caller)
    mark = {name: len(stack.log(name)) for name in (*KILLED, "web")}
    with refusing(stack.redis_url, word, tmp_path):
        assert asked(stack, f"during-{word}") == "delegated"
        ready = caller.http.get("/readyz").json()
        assert ready["not_ready"] == ["redis"]
        if word != "LOADING":  # it answers slowly, and so at times too late
            assert ready["redis"].startswith(f"{word}: ")
        before = {name: stack.pids(name)[0] for name in KILLED}
        master, first, *_ = stack.pids("web")
        kill(first, *before.values())
        if word != "LOADING":  # which is over before they are there
            shell = Shell(stack, PYTHONPATH=str(PROJECT_ROOT))  # this checkout's own code
            examined = shell.run("doctor", "--json")
            assert examined.code == REDIS_EXIT
            said = [each["message"] for each in examined.json["checks"] if each["name"] == "redis"]
            assert f"Redis refuses to work ({word} " in " ".join(said)
        after = started_again(stack, before)

        def another_is_there() -> bool | None:
            now = stack.pids("web")
            return True if len(now) == 3 and first not in now else None

        wait_for("another web process", another_is_there, within_s=STARTS_WITHIN_S)
        for number in range(6):
            assert asked(stack, f"during-{word}-{number}") in ("delegated", "queued")
        if word != "LOADING":
            wait_for(
                f"{word} in the log of a worker",
                lambda: word in stack.log("dispatch")[mark["dispatch"] :] or None,
                within_s=STARTS_WITHIN_S,
            )
            assert word in stack.log("web")[mark["web"] :]

    wait_ready(caller)
    room = f"after-{word}"
    made = caller.post(room_name=room)
    caller.wait_for_state(made["dispatch_id"], "joined", within_s=30)
    assert len(active_agents(stack, room)[room]) == 1
    assert {name: stack.pids(name)[0] for name in KILLED} == after
    assert stack.pids("web")[0] == master
    for name, at in mark.items():
        said = stack.log(name)[at:]
        assert "Unrecoverable" not in said
        assert "Worker failed to boot" not in said
    caller.http.delete(f"{ENDPOINT}/{made['dispatch_id']}")
