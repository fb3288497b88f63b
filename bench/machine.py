"""The machine on which the benchmark runs, and the versions of its software."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from bench import PROJECT_ROOT
from devstack.servers import find_livekit_server, find_redis_server

_PACKAGES = (
    "celery",
    "flask",
    "gunicorn",
    "gunicorn_h1c",
    "livekit-agents",
    "livekit-api",
    "livekit",
    "redis",
    "fastapi",
    "uvicorn",
    "taskiq",
    "taskiq-redis",
    "dramatiq",
)


def machine() -> dict[str, str]:
    """Processor, memory, system and Python."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of everything that is compared or used."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    found["livekit-server"] = _said(str(find_livekit_server(os.environ)), "--version")
    found["redis-server"] = _said(str(find_redis_server(os.environ)), "--version")
    found["usher"] = _said("git", "-C", str(PROJECT_ROOT), "describe", "--always", "--dirty")
    return found


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _said(*command: str) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    words = ran.stdout.split()
    named = [word.removeprefix("v=") for word in words if word.startswith("v=")]
    return named[0] if named else (words[-1] if words else "unknown")
