"""Can an operator look into a session with Flower and send it again with the celery CLI?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import httpx
import pytest

from devstack import PROJECT_ROOT
from tests.support.stacks import RunningStack

from .session import Caller, active_agents, end_rooms, wait_for

REDISPATCH = "dispatcher.tasks.redispatch"


def celery(stack: RunningStack, *arguments: str, redis_url: str = "") -> str:
    """What the celery CLI prints, run as an operator runs it: with REDIS_URL and nothing else."""
    answered = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "dispatcher", *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, "REDIS_URL": redis_url or stack.redis_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return answered.stdout + answered.stderr


def redispatch(stack: RunningStack, dispatch_id: str, *, redis_url: str = "") -> str:
    """Send one dispatch again by hand; gives the worker's answer."""
    arguments = ("--args", f'["{dispatch_id}"]')
    task_id = celery(stack, "call", REDISPATCH, *arguments, redis_url=redis_url).strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", task_id), task_id

    def look() -> str | None:
        printed = celery(stack, "result", task_id, redis_url=redis_url)
        return printed if printed.strip() and "PENDING" not in printed else None

    return wait_for("the answer", look, within_s=60)  # each look is a program that starts


def test_a_session_that_has_its_agent_is_not_dispatched_again_and_the_answer_says_so(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    said = redispatch(stack, answer["dispatch_id"])
    assert f"already has its agent {record['agent_identity']}" in said
    assert caller.record(answer["dispatch_id"])["generation"] == 1
    assert len(active_agents(stack, answer["room_name"])[answer["room_name"]]) == 1
    end_rooms(stack, answer["room_name"])


def test_an_ended_session_gets_an_agent_again_by_hand(stack: RunningStack, caller: Caller) -> None:
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    end_rooms(stack, answer["room_name"])
    caller.wait_for_state(answer["dispatch_id"], "ended", within_s=30)
    began_ms = time.time() * 1000
    said = redispatch(stack, answer["dispatch_id"])
    assert "generation 2" in said
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    assert record["generation"] == 2
    # Since it was sent again, not since it was first asked for.
    assert 0 < record["time_to_join_ms"] <= record["joined_at_ms"] - began_ms
    assert active_agents(stack, answer["room_name"])[answer["room_name"]] == [
        record["agent_identity"]
    ]
    end_rooms(stack, answer["room_name"])


def test_an_unknown_dispatch_is_refused_clearly(stack: RunningStack) -> None:
    assert "no dispatch 'dsp_nobody'" in redispatch(stack, "dsp_nobody")


@pytest.mark.parametrize(
    "path", ["/", "/workers", "/tasks", "/broker", "/api/tasks", "/api/workers"]
)
def test_flower_asks_for_a_password(stack: RunningStack, path: str) -> None:
    response = httpx.get(stack.flower_url + path, timeout=10, trust_env=False)
    assert response.status_code == 401
