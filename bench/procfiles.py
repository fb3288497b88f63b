"""The Procfile of a measurement.

It has all of Usher's Procfile but its agent server, the two agent servers of the comparison, and
every contender: all of them run while one is measured.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bench import PROJECT_ROOT, BenchError
from bench.contenders import AGENT_NAME
from devstack.servers import find_redis_server
from devstack.supervision import read_procfile

AGENT_SLOTS: Final = 130  # of which LiveKit uses 70 %, or all, as the agent server reports them
SLOTS_OF_TWO: Final = 80  # of each agent server where there are two of each variant
IDLE_PROCESSES: Final = 4
WEB_PROCESSES: Final = 2  # as many as Usher has
_FREE_PORTS: Final = range(20_000, 30_000)
_PORTS: Final = (
    "background",
    "taskiqweb",
    "taskiqredis",
    "dramatiqweb",
    "dramatiqredis",
    "fake",
    "page",
    "livekit",
    "agent",
    "agent2",
)


class Kind(StrEnum):
    """The kind of the agent servers, or that there are none."""

    SLOTS = "slots"  # thread executor, load = used slots
    PROCESS = "process"  # the same with the process executor
    CPU = "cpu"  # thread executor, livekit-agents' default load report
    TWO = "two"  # thread executor, load = used slots, two agent servers in place of each one
    SOUND = "sound"  # thread executor, load = used slots; the agent greets with a tone
    DISPATCH_ONLY = "dispatch-only"  # a LiveKit that only answers; no agents, no verification
    LIVE = "live"  # a LiveKit that only answers, and lists an agent in every room


# API keys of Usher's client, by their kind: no secrets, but of this run.
USHER_KEYS: Final = {kind: f"bench-{kind}-key-of-usher" for kind in ("secret", "publishable")}

_WITHOUT_AGENTS: Final = (Kind.DISPATCH_ONLY, Kind.LIVE)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The Procfile of one kind, its environment, and where its programs listen."""

    procfile: str
    environ: dict[str, str]
    ports: dict[str, int]
    agents: tuple[str, ...]  # the programs that are agent servers
    clients_file: Path  # with `usher_client`
    livekit_url: str  # of that client
    deadline_s: int


def plan(kind: Kind, run_dir: Path, contenders: Collection[str]) -> Plan:
    """Return the processes to run for `kind` and these contenders; Usher is always there."""
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    fake = f"http://127.0.0.1:{ports['fake']}"
    agents: tuple[str, ...] = ()
    lines = {
        name: command
        for name, command in read_procfile(PROJECT_ROOT / "Procfile").items()
        if name != "agent"
    }
    lines |= {
        name: command
        for name, command in _contenders(ports).items()
        if any(name.startswith(contender) for contender in contenders)
    }
    if kind in _WITHOUT_AGENTS:
        lines = {name: _with_livekit(fake, command) for name, command in lines.items()}
        lines["fake"] = f"exec python -m bench.fake_livekit {ports['fake']}"
        lines["pretended"] = "exec nice -n 10 python -m bench.pretended"
    else:
        load = "cpu" if kind is Kind.CPU else "slots"
        agents = ("agent", "plain", "agent2", "plain2")[: 4 if kind is Kind.TWO else 2]
        for name in agents:
            variant = "plain" if name.startswith("plain") else "usher"
            port = ports.get(name, 0)
            lines[name] = f"exec nice -n 10 python -m bench.agent {variant} {load} {port}"
    clients = run_dir.with_name("clients.toml")
    environ = {
        "USHER_CLIENTS_FILE": str(clients),
        "USHER_LIVEKIT_PORT": str(ports["livekit"]),
        "USHER_AGENT_PORT": str(ports["agent"]),
        "USHER_AGENT_SLOTS": str(SLOTS_OF_TWO if kind is Kind.TWO else AGENT_SLOTS),
        "USHER_AGENT_EXECUTOR": "process" if kind is Kind.PROCESS else "thread",
        "USHER_AGENT_IDLE_PROCESSES": str(IDLE_PROCESSES),
        "USHER_MAX_BACKLOG": "0",
        "USHER_LOG_FORMAT": "json",  # as in production
        "USHER_BENCH_KEY": "bench-key-of-the-contenders",
        "USHER_BENCH_TASKIQ_REDIS": f"redis://127.0.0.1:{ports['taskiqredis']}/0",
        "USHER_BENCH_DRAMATIQ_REDIS": f"redis://127.0.0.1:{ports['dramatiqredis']}/0",
        "USHER_BENCH_FAKE": fake,
        "USHER_BENCH_RENEW": str(run_dir / "renew.txt"),
    }
    deadline_s = 20
    if kind is Kind.DISPATCH_ONLY:
        # Nothing becomes of what is dispatched: neither shall its time run out, nor shall it be
        # verified again and again.
        deadline_s = 600
        environ["USHER_VERIFY_TIMEOUT_S"] = "600"
    elif kind is Kind.CPU:
        deadline_s = 60  # as long as the other contenders are waited for
    elif kind is Kind.SOUND:
        environ["USHER_AGENT_ENTRYPOINT"] = "bench.greeting:entrypoint"
    livekit = fake if kind in _WITHOUT_AGENTS else f"ws://127.0.0.1:{ports['livekit']}"
    return Plan(
        procfile="".join(f"{name}: {command}\n" for name, command in lines.items()),
        environ=environ,
        ports=ports,
        agents=agents,
        clients_file=clients,
        livekit_url=livekit,
        deadline_s=deadline_s,
    )


def usher_client(plan: Plan, placement: str) -> str:
    """Return the file of Usher's one client.

    Its pace would be another one if there were several clients.
    """
    entry = f"""
[clients.bench]
livekit_url = "{plan.livekit_url}"
livekit_api_key = "env:LIVEKIT_API_KEY"
livekit_api_secret = "env:LIVEKIT_API_SECRET"
agent_names = ["{AGENT_NAME}"]
origins = ["http://127.0.0.1:{plan.ports["page"]}"]
deadline_s = {plan.deadline_s}
placement = "{placement}"
"""
    for kind, key in USHER_KEYS.items():
        digest = hashlib.sha256(key.encode()).hexdigest()
        entry += f"""
[[clients.bench.keys]]
id = "{kind}"
kind = "{kind}"
sha256 = "{digest}"
"""
    return entry


def _contenders(ports: dict[str, int]) -> dict[str, str]:
    def web(module: str, port: int) -> str:
        return (
            f"exec uvicorn {module}:app --host 127.0.0.1 --port {port} --workers {WEB_PROCESSES} "
            "--log-level warning --no-access-log"
        )

    here = "bench.contenders"
    return {
        "background": web(f"{here}.background_tasks", ports["background"]),
        "taskiqredis": _redis(ports["taskiqredis"]),
        "taskiqweb": web(f"{here}.on_taskiq", ports["taskiqweb"]),
        # Behind the web, as Usher's workers are.
        "taskiq": f"exec nice -n 10 taskiq worker {here}.on_taskiq:broker --workers 1",
        "dramatiqredis": _redis(ports["dramatiqredis"]),
        "dramatiqweb": web(f"{here}.on_dramatiq", ports["dramatiqweb"]),
        "dramatiq": f"exec nice -n 10 dramatiq {here}.on_dramatiq --processes 1 --threads 64",
    }


def _redis(port: int) -> str:
    """Return the command of a contender's own Redis, with the persistence of Usher's."""
    directory = f"$USHER_RUN_DIR/redis-{port}"
    return (
        f"mkdir -p {directory} && exec {find_redis_server(os.environ)} --port {port} "
        f"--bind 127.0.0.1 --dir {directory} --save '' --appendonly yes --appendfsync everysec "
        "--set-proc-title no"
    )


def _with_livekit(url: str, command: str) -> str:
    return command.replace("exec ", f"exec env LIVEKIT_URL={url} ", 1)


def _free_ports(count: int) -> list[int]:
    """Ports from below the range of outgoing connections, as `devstack.ports` takes them."""
    found: list[int] = []
    for port in random.sample(_FREE_PORTS, k=500):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BenchError("no free ports from 20000 to 29999")
