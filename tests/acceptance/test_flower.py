"""Is a session found in Flower by its room or dispatch id, also after Flower has been restarted?"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack import PROJECT_ROOT
from tests.conftest import free_port
from tests.support.stacks import RunningStack

from .session import Caller, end_rooms, wait_for

VERIFY = "dispatcher.tasks.verify_dispatch"
BOTH = {"dispatcher.tasks.dispatch_agent", VERIFY}
METADATA = "what the agent is told, and nobody else"
KILLS = 12
# A name that needs quotes in a search, and that Python shows with a backslash in it.
ROOM = "Besprechung 2: 'März' (a)"


def flower_client(url: str, stack: RunningStack) -> httpx.Client:
    auth = (stack.flower_user, stack.flower_password)
    return httpx.Client(base_url=url, auth=auth, timeout=10, trust_env=False)


@pytest.fixture
def flower(stack: RunningStack) -> Iterator[httpx.Client]:
    with flower_client(stack.flower_url, stack) as client:
        yield client


def found(flower: httpx.Client, search: str) -> dict[str, dict[str, Any]]:
    """The tasks that Flower's API finds; none while Flower is down."""
    try:
        response = flower.get("/api/tasks", params={"search": search})
    except httpx.TransportError:
        return {}
    assert response.status_code == 200, response.text
    tasks: dict[str, dict[str, Any]] = response.json()
    return tasks


def on_the_page(flower: httpx.Client, search: str) -> list[dict[str, Any]]:
    """The rows that the page at /tasks asks for when somebody types `search`."""
    asked = {"draw": 1, "start": 0, "length": 15, "search[value]": search}
    asked |= {"order[0][column]": 0, "columns[0][data]": "received", "order[0][dir]": "desc"}
    response = flower.post("/tasks/datatable", data=asked)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert "searchError" not in answer
    rows: list[dict[str, Any]] = answer["data"]
    return rows


def both(flower: httpx.Client, search: str, *, within_s: float = 20) -> dict[str, dict[str, Any]]:
    """The two tasks of a session that has joined, once Flower knows how both went."""

    def look() -> dict[str, dict[str, Any]] | None:
        tasks = found(flower, search)
        done = {task["name"] for task in tasks.values() if task["state"] == "SUCCESS"}
        return tasks if done >= BOTH else None

    return wait_for(f"both tasks, by {search}", look, within_s=within_s)


def joined_session(stack: RunningStack, caller: Caller, room: str) -> str:
    """A session that came and went in `room`; its dispatch id."""
    agent = {"agent_name": "session-agent-rag", "metadata": METADATA}
    answer = caller.post(room_name=room, room_config={"agents": [agent]})
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=15)
    end_rooms(stack, room)
    caller.wait_for_state(answer["dispatch_id"], "ended", within_s=15)
    dispatch_id: str = answer["dispatch_id"]
    return dispatch_id


def test_a_session_is_found_by_room_and_by_dispatch_id_in_api_and_page(
    stack: RunningStack, caller: Caller, flower: httpx.Client
) -> None:
    room = f"{ROOM} {uuid.uuid4().hex[:8]}"
    dispatch_id = joined_session(stack, caller, room)
    by_id = both(flower, dispatch_id)
    for search in (
        f"kwargs:dispatch_id={dispatch_id}",
        f'"kwargs:room={room}"',
        f'"kwargs:room={room}" name:{VERIFY}',
    ):
        rows = on_the_page(flower, search)
        # On a slow machine others, too, may have looked after it.
        wanted = {VERIFY} if "name:" in search else BOTH
        assert {row["name"] for row in rows} >= wanted, search
        assert {row["kwargs"] for row in rows} == {f"{dispatch_id} {room}"}, search
        assert found(flower, search).keys() >= {row["uuid"] for row in rows}, search
    assert "'joined'" in [task["result"] for task in by_id.values() if task["name"] == VERIFY]
    assert found(flower, '"kwargs:room=nobody was ever here"') == {}
    assert found(flower, "sweep") == {}, "sweeps bury the sessions"


def files_text(folder: Path) -> str:
    return "".join(path.read_bytes().decode(errors="replace") for path in folder.iterdir())


def test_its_history_outlives_a_restart_and_holds_no_secret(
    stack: RunningStack, caller: Caller, flower: httpx.Client
) -> None:
    dispatch_id = joined_session(stack, caller, f"room-{uuid.uuid4().hex}")
    before = both(flower, dispatch_id)
    stack.supervisorctl("restart", "usher:flower")
    assert both(flower, dispatch_id, within_s=80).keys() >= before.keys()
    folder = stack.run_dir / "flower"
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = files_text(folder)
    assert dispatch_id in kept
    for secret in (
        METADATA,
        stack.api_key,
        stack.livekit_api_secret,
        stack.flower_password,
        stack.redis_url.split("@")[0],
        "eyJ",  # how every token begins
    ):
        assert secret not in kept


@contextmanager
def own_flower(
    stack: RunningStack, folder: Path, *, save_every_ms: int
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A Flower beside the stack's, with a history of its own in `folder`: process and client."""
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if "FLOWER" not in name}
    environ |= {
        "REDIS_URL": stack.redis_url,
        "FLOWER_BASIC_AUTH": f"{stack.flower_user}:{stack.flower_password}",
        "FLOWER_PORT": str(port),
        "FLOWER_DB": str(folder / "tasks"),
        "FLOWER_STATE_SAVE_INTERVAL": str(save_every_ms),
    }
    log = folder.parent / f"{folder.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "dispatcher", "flower"],
            cwd=PROJECT_ROOT,
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        with flower_client(f"http://127.0.0.1:{port}", stack) as client:
            wait_for("Flower", lambda: answers(client) or None, within_s=90)
            yield process, client
    finally:
        process.kill()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/api/tasks", params={"limit": 1}).status_code == 200
    except httpx.TransportError:
        return False


def hears_events(client: httpx.Client) -> bool:
    """Both workers have told it that they are there."""
    return len(client.get("/workers", params={"json": 1}).json()["data"]) >= 2


def saved_since(folder: Path, moment_ns: int) -> bool:
    """All of its files are of a save that has begun since; how many they are is Python's choice."""
    files = [path for path in folder.iterdir() if not path.name.startswith("tasks.tmp")]
    return bool(files) and all(path.stat().st_mtime_ns > moment_ns for path in files)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_killed_flower_comes_back_with_what_it_had_saved(
    stack: RunningStack, caller: Caller, tmp_path: Path
) -> None:
    folder = tmp_path / "flower"
    with own_flower(stack, folder, save_every_ms=20) as (process, client):
        wait_for("the workers", lambda: hears_events(client) or None, within_s=60)
        dispatch_id = joined_session(stack, caller, f"room-{uuid.uuid4().hex}")
        known = both(client, dispatch_id)
        now = tmp_path / "now"
        now.touch()
        moment_ns = now.stat().st_mtime_ns
        wait_for("a save", lambda: saved_since(folder, moment_ns) or None, within_s=60)
        process.kill()
    for _ in range(KILLS):
        with own_flower(stack, folder, save_every_ms=20) as (process, client):
            assert found(client, dispatch_id).keys() >= known.keys()
            process.kill()
    assert [path.name for path in folder.iterdir() if "corrupt" in path.name] == []
