"""How do these tests run a stack whose processes reach Redis and LiveKit through gates?"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import redis
from livekit import api

from devstack import PROJECT_ROOT
from devstack.ports import PORT_VARIABLES, Ports, choose_ports
from devstack.supervision import read_procfile
from tests.acceptance.session import ENDPOINT, Caller, active_agents, wait_for, wait_ready
from tests.support.stacks import RunningStack

__all__ = ["ENDPOINT", "Caller", "active_agents", "wait_for", "wait_ready"]

DISPATCH_WORKER = "celery -A dispatcher worker --queues dispatch,sweep --pool threads"


def free_ports() -> tuple[Ports, dict[str, str]]:
    """Free ports, and the environment that makes a stack take the ones its gates lead to."""
    ports = choose_ports(dict.fromkeys(PORT_VARIABLES, "0"))
    return ports, {
        "USHER_REDIS_PORT": str(ports.redis),
        "USHER_LIVEKIT_PORT": str(ports.livekit),
    }


def through(command: str, *, redis_port: int = 0, livekit_port: int = 0) -> str:
    """A line of a Procfile whose process has Redis or LiveKit at these ports."""
    exports = []
    if redis_port:
        exports.append(f'REDIS_URL="${{REDIS_URL%:*}}:{redis_port}/0"')
    if livekit_port:
        exports.append(f"LIVEKIT_URL=ws://127.0.0.1:{livekit_port}")
    return f"export {' '.join(exports)} && {command}"


def write_procfile(path: Path, changes: Mapping[str, str]) -> Path:
    """The project's own Procfile without Flower, with other lines for some names, and more."""
    lines = {**read_procfile(PROJECT_ROOT / "Procfile"), **changes}
    del lines["flower"]
    path.write_text("".join(f"{name}: {command}\n" for name, command in lines.items()))
    return path


@contextlib.contextmanager
def stopped(stack: RunningStack, name: str) -> Iterator[None]:
    """That program is down during this block."""
    group = "servers" if name in ("redis", "livekit") else "usher"
    stack.supervisorctl("stop", f"{group}:{name}")
    try:
        yield
    finally:
        assert "started" in stack.supervisorctl("start", f"{group}:{name}")


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Those processes stand still during this block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def kill(*pids: int) -> None:
    """SIGKILL, and return when they are gone."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
            os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=5)


def owner_of(port: int, stack: RunningStack, name: str) -> int:
    """The pid of the process, of that program's, whose connection comes from `port`."""
    for pid in stack.pids(name):
        with contextlib.suppress(psutil.Error):
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.laddr.port == port:
                    return pid
    raise AssertionError(f"no process of {name} has a connection from port {port}")


def redis_of(stack: RunningStack) -> redis.Redis:
    """The stack's Redis, not through any gate."""
    return redis.Redis.from_url(stack.redis_url, decode_responses=True, socket_timeout=5)


def records_of(stack: RunningStack, room: str) -> list[str]:
    """The ids of all records of that room, whatever their state."""
    found = []
    with redis_of(stack) as client:
        for key in client.scan_iter("usher:dispatch:*", count=1000, _type="hash"):
            if client.hget(key, "room_name") == room:
                found.append(key.removeprefix("usher:dispatch:"))
    return found


def livekit_api(stack: RunningStack) -> api.LiveKitAPI:
    return api.LiveKitAPI(
        stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
    )


async def generations_at_livekit(stack: RunningStack, room: str) -> list[str]:
    """The generation of every dispatch of ours that LiveKit lists for the room."""
    async with livekit_api(stack) as livekit:
        listed = await livekit.agent_dispatch.list_dispatch(room)
    return sorted(
        item.attributes["usher.generation"]
        for item in listed
        if "usher.dispatch_id" in item.attributes and not item.state.deleted_at
    )


async def end_room(stack: RunningStack, *rooms: str) -> None:
    """Close rooms, those that are there."""
    async with livekit_api(stack) as livekit:
        for room in rooms:
            with contextlib.suppress(api.TwirpError):
                await livekit.room.delete_room(api.DeleteRoomRequest(room=room))


def one_agent(stack: RunningStack, room: str, *, for_s: float) -> str:
    """Exactly one ACTIVE agent, the same one, for so long, by LiveKit's own list."""
    until = time.monotonic() + for_s
    [identity] = active_agents(stack, room)[room]
    while time.monotonic() < until:
        assert active_agents(stack, room)[room] == [identity]
        time.sleep(0.1)
    return identity
