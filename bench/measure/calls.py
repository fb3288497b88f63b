"""The calls to LiveKit and the Redis commands for one undisturbed session.

LiveKit's calls are counted in its log. Redis's commands are counted by `MONITOR`, which tells those
that a process has sent from those that a script has made inside Redis; what the same processes send
when idle is measured before and subtracted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
import threading
from collections import Counter
from functools import cache
from typing import Any, Final

import psutil

from bench import PROJECT_ROOT
from bench.contenders import CONTENDERS, Contender
from bench.procfiles import Kind
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit
from dispatcher.ledger.scripts import script

NAME: Final = "calls"
_IDLE_S: Final = 10.0
_PERIOD_S: Final = 2.0
# Of the session's own time none, so that its renewals (one in 0.8 s) are not counted by chance.
_HARNESS: Final = frozenset({"DeleteRoom"})


def units(size: Size) -> list[Unit]:
    """One stretch for each contender."""
    return [
        Unit(
            measure=NAME,
            kind=Kind.SLOTS,
            key=name,
            contender=name,
            takes_s=_PERIOD_S * size.calls_sessions + (_IDLE_S + 5 if one.redis else 5),
            arguments={"sessions": size.calls_sessions},
        )
        for name, one in CONTENDERS.items()
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """Sessions one after the other; each is ended as soon as its agent is there and noticed."""
    contender = CONTENDERS[unit.contender]
    await bed.settle()
    await bed.caller(contender)
    idle: Counter[str] = Counter()
    monitor = Monitor(bed, contender) if contender.redis else None
    if monitor:
        monitor.start()
        await asyncio.sleep(_IDLE_S)
        idle = monitor.take()
    loop = asyncio.get_running_loop()
    started = loop.time()
    rooms = bed.rooms(contender, unit.arguments["sessions"])
    for number, room in enumerate(rooms):
        [session] = await bed.ask(contender, [room])
        await bed.log.wait_for_agents([room], within_s=10)
        # Not asked whether it has been noticed: that would be commands of the harness's.
        await asyncio.sleep(0.7 if contender.asked_by == "http" else 0.1)
        if monitor:
            monitor.look()
        await bed.end([room])
        await asyncio.sleep(max(0.0, started + (number + 1) * _PERIOD_S - loop.time()))
        if session.error:
            raise RuntimeError(session.error)
    lasted_s = loop.time() - started
    counted = monitor.take() if monitor else Counter()
    if monitor:
        monitor.stop()
    calls: Counter[str] = Counter()
    for room in rooms:
        calls.update({n: c for n, c in bed.log.calls[room].items() if n not in _HARNESS})
    return {
        "livekit": {name: count / len(rooms) for name, count in sorted(calls.items())},
        "redis": {
            name: round((counted[name] - idle[name] / _IDLE_S * lasted_s) / len(rooms), 2)
            for name in sorted(counted)
        },
        # Of the whole run, by the script that has made them, with what is idle's.
        "redis_inside": monitor.inside(len(rooms)) if monitor else {},
        "redis_idle_per_s": {name: round(count / _IDLE_S, 2) for name, count in idle.items()},
    }


class Monitor:
    """Counts commands as `<program> <command>`; `script` is for those inside scripts.

    An EVALSHA of Usher's is named by its script.
    """

    def __init__(self, bed: Testbed, contender: Contender) -> None:
        self._bed = bed
        with bed.redis(contender.redis) as client:
            options = client.connection_pool.connection_kwargs
        self._port: int = options["port"]
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        if password := options.get("password"):
            self._socket.sendall(f"AUTH {password}\r\n".encode())
        self._seen: list[tuple[str, str]] = []  # port or "lua", command
        self._taken: list[tuple[str, str]] = []  # by the last `take`
        self._owners: dict[str, str] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Count from now on."""
        self._socket.sendall(b"MONITOR\r\n")
        self._thread.start()
        self.look()

    def look(self) -> None:
        """See whose connections there are; some do not live long."""
        for name in self._bed.stack.programs():
            for pid in self._bed.stack.pids(name):
                with contextlib.suppress(psutil.Error):
                    for one in psutil.Process(pid).net_connections("tcp"):
                        if one.raddr and one.raddr.port == self._port:
                            self._owners[str(one.laddr.port)] = name

    def take(self) -> Counter[str]:
        """Return the counts since the last call."""
        self.look()
        seen, self._seen = self._seen, []
        self._taken = seen
        return Counter(
            f"{'script' if port == 'lua' else self._owners.get(port, 'unknown')} {command}"
            for port, command in seen
        )

    def inside(self, sessions: int) -> dict[str, dict[str, float]]:
        """Return for each script what it has called since the last `take` but one, per session."""
        calls: dict[str, Counter[str]] = {}
        script_name = ""
        for port, command in self._taken:
            if port != "lua":
                script_name = command.removeprefix("EVALSHA ")
            else:
                calls.setdefault(script_name, Counter())[command] += 1
        return {
            name: {command: round(count / sessions, 2) for command, count in found.items()}
            for name, found in sorted(calls.items())
        }

    def stop(self) -> None:
        """Count no longer."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=5)
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                if found := COMMAND.match(line):
                    self._seen.append(count_as(found))


# +1795392357.100000 [0 127.0.0.1:40000] "EVALSHA" "<digest>" ...
COMMAND: Final = re.compile(rb'\+[\d.]+ \[\d+ (?:lua|[^\]]*?:(\d+))\] "([^"]*)"(?: "([^"]*)")?')


def count_as(found: re.Match[bytes]) -> tuple[str, str]:
    port, command, first = (part.decode() if part else "" for part in found.groups())
    command = command.upper()
    if command == "EVALSHA":
        command = f"EVALSHA {_scripts().get(first, first[:8])}"
    return port or "lua", command


@cache
def _scripts() -> dict[str, str]:
    """Usher's scripts by their digests."""
    names = (path.stem for path in (PROJECT_ROOT / "dispatcher" / "ledger" / "lua").glob("*.lua"))
    return {
        hashlib.sha1(script(name).encode(), usedforsecurity=False).hexdigest(): name
        for name in names
    }
