"""Readiness probes of a stack's programs."""

import httpx
import redis

from devstack.config import StackConfig
from devstack.supervision import Program

_TIMEOUT_S = 2.0
_SILENT = "no answer"
# supervisord's names of states
_NOT_RUNNING = {"BACKOFF": "ends as soon as it starts", "STOPPED": "starting"}


def why_not_ready(program: Program, config: StackConfig) -> str:
    """Return why a program does not run yet, or does not answer as it should; empty: it does."""
    if program.state != "RUNNING":
        return _NOT_RUNNING.get(program.state, program.state.lower())
    match program.name:
        case "redis":
            return _pings(config.redis_url)
        case "livekit":
            return _answers(config.livekit_url.replace("ws:", "http:", 1), 200)
        case "web":
            return _answers(f"{config.web_url}/readyz", 200, names_missing=True)
        case "flower":
            return _answers(config.flower_url, 200, 401)
        case "agent":
            return _answers(config.agent_url, 200)
        case _:
            return ""


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
