"""The demo: send one real dispatch, show its way, and check that exactly one agent came."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import httpx
from livekit import api

from devstack import PROJECT_ROOT, StackError
from devstack.config import StackConfig
from devstack.credentials import FLOWER_USER

_ENDS_WITHIN_S = 30
_POLL_EVERY_S = 0.1
_COUNT_FOR_S = 1.0
_FINAL_STATES = frozenset({"joined", "failed", "cancelled"})
_TASKS = frozenset({"dispatcher.tasks.dispatch_agent", "dispatcher.tasks.verify_dispatch"})

Record = Mapping[str, Any]


def run_demo(config: StackConfig) -> int:
    """Dispatch once and print what happened; 0 if exactly one agent is in the room, else 1."""
    record = _dispatch_and_wait(config)
    agents = asyncio.run(_count_agents(config, record["room_name"]))
    _run_command(config, "show", record["dispatch_id"])
    _run_command(config, "stats", "--window", "all")
    _print_tasks(config)
    succeeded = record["state"] == "joined" and agents == {1}
    seen = " or ".join(str(count) for count in sorted(agents))
    joined_after = f", {record['time_to_join_ms']} ms after it was asked for" if succeeded else ""
    print(
        f"\n{'OK' if succeeded else 'FAILED'}: the dispatch is {record['state']}{joined_after}; "
        f"for {_COUNT_FOR_S:.0f} s LiveKit listed {seen} active agent(s) in the room",
        flush=True,
    )
    return 0 if succeeded else 1


def _dispatch_and_wait(config: StackConfig) -> Record:
    """Create one dispatch and follow it, as any client would; return its record."""
    headers = {"Authorization": f"Bearer {config.credentials.api_key}"}
    with httpx.Client(headers=headers, timeout=5, trust_env=False) as client:
        try:
            asked = client.post(
                f"{config.web_url}/api/v1/dispatches", json={"participant_name": "Demo"}
            )
            asked.raise_for_status()
            answer = asked.json()
            print(f"\nPOST /api/v1/dispatches -> {asked.status_code} {answer['dispatch_id']}")
            status_url = httpx.URL(config.web_url).join(answer["status_url"])
            give_up_at = time.monotonic() + _ENDS_WITHIN_S
            while True:
                record: Record = client.get(status_url).raise_for_status().json()
                if record["state"] in _FINAL_STATES or time.monotonic() > give_up_at:
                    return record
                time.sleep(_POLL_EVERY_S)
        except httpx.HTTPError as error:
            raise StackError(f"the dispatch could not be followed: {error}") from error


def _run_command(config: StackConfig, *command: str) -> None:
    """Run one of the operator's commands, which prints what it finds."""
    print(f"\n$ celery -A dispatcher dispatch {' '.join(command)}", flush=True)
    subprocess.run(
        [sys.executable, "-m", "celery", "-A", "dispatcher", "dispatch", *command],
        cwd=PROJECT_ROOT,
        env=config.process_environment(os.environ),
    )


async def _count_agents(config: StackConfig, room_name: str) -> set[int]:
    """Return every number of active agents that LiveKit lists in the room within a second."""
    credentials = config.credentials
    async with api.LiveKitAPI(
        url=config.livekit_url,
        api_key=credentials.livekit_api_key,
        api_secret=credentials.livekit_api_secret,
    ) as livekit:
        counts = set()
        stop_at = time.monotonic() + _COUNT_FOR_S
        while time.monotonic() < stop_at:
            listed = await livekit.room.list_participants(
                api.ListParticipantsRequest(room=room_name)
            )
            counts.add(
                sum(
                    participant.kind == api.ParticipantInfo.Kind.AGENT
                    and participant.state == api.ParticipantInfo.State.ACTIVE
                    for participant in listed.participants
                )
            )
            await asyncio.sleep(_POLL_EVERY_S)
        return counts


def _print_tasks(config: StackConfig) -> None:
    """Print the Celery tasks of the dispatch, as Flower shows them."""
    print("\nCelery tasks, by Flower's API")
    try:
        auth = (FLOWER_USER, config.credentials.flower_password)
        listed = httpx.get(f"{config.flower_url}/api/tasks", auth=auth, trust_env=False)
        tasks = listed.raise_for_status().json()
    except httpx.HTTPError as error:
        print(f"  Flower does not answer: {error}")
        return
    own = (task for task in tasks.values() if task["name"] in _TASKS)
    for task in sorted(own, key=lambda task: task["received"] or 0):
        runtime_ms = (task["runtime"] or 0) * 1000
        print(f"  {task['name']}  {task['state']}  ran for {runtime_ms:.0f} ms")
