"""Readiness probes of a stack's programs."""

from collections.abc import Callable, Iterable, Mapping

import httpx
import redis

from devstack.config import StackConfig
from devstack.supervision import Program

# Returns why a program is not ready; empty where it is.
Probe = Callable[[], str]

_TIMEOUT_S = 2.0
_SILENT = "no answer"
# supervisord's names of states
_NOT_RUNNING = {"BACKOFF": "ends as soon as it starts", "STOPPED": "starting"}


def probes(config: StackConfig) -> dict[str, Probe]:
    """Return the probes, by the name of the program; not every program has one."""
    return {
        "redis": lambda: _pings(config.redis_url),
        "livekit": lambda: _answers(config.livekit_url.replace("ws:", "http:", 1), 200),
        "web": lambda: _answers(f"{config.web_url}/readyz", 200, names_missing=True),
        "flower": lambda: _answers(config.flower_url, 200, 401),
        "agent": lambda: _answers(config.agent_url, 200),
    }


def not_ready(programs: Iterable[Program], asked: Mapping[str, Probe]) -> dict[str, str]:
    """Return the programs that do not run yet, or do not answer as they should, and why."""
    reasons = {
        program.name: asked.get(program.name, str)()
        if program.state == "RUNNING"
        else _NOT_RUNNING.get(program.state, program.state.lower())
        for program in programs
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _answers(url: str, *statuses: int, names_missing: bool = False) -> str:
    """Ask by HTTP; `names_missing`: the answer lists parts that a session would wait for."""
    try:
        # No proxy of the environment stands between this machine and itself.
        response = httpx.get(url, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return _SILENT
    if response.status_code not in statuses:
        return f"answers {response.status_code}"
    return ", ".join(response.json()["not_ready"]) if names_missing else ""


def _pings(url: str) -> str:
    try:
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S) as client:
            client.ping()
    except redis.RedisError:
        return _SILENT
    return ""
