"""What does tracing cost where nobody has asked for it?"""

from __future__ import annotations

import asyncio

import redis
from livekit import api

from tests.support.stacks import RunningStack

from .session import ENDPOINT, Caller


def at_livekit(stack: RunningStack, room: str) -> list[dict[str, str]]:
    """The attributes of that room's dispatches to an agent with a name.

    (LiveKit has one of its own in every room, for agents without a name.)
    """

    async def look() -> list[dict[str, str]]:
        async with api.LiveKitAPI(
            stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
        ) as livekit:
            listed = await livekit.agent_dispatch.list_dispatch(room)
            return [dict(each.attributes) for each in listed if each.agent_name]

    return asyncio.run(look())


def test_nothing_about_traces_is_written_down_logged_or_sent(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    try:
        sent = ("dispatched", "offered", "accepted", "joined")
        caller.wait_for_state(answer["dispatch_id"], *sent, within_s=20)
        with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
            record = client.hgetall(f"usher:dispatch:{answer['dispatch_id']}")
        assert "traceparent" not in record
        assert "trace_id" not in stack.log("dispatch")
        listed = at_livekit(stack, answer["room_name"])
        assert listed
        for attributes in listed:  # of each attempt, on a busy machine
            assert sorted(attributes) == [
                "usher.client_id",
                "usher.container",
                "usher.dispatch_id",
                "usher.generation",
                "usher.request_type",
                "usher.requested_at_ms",
            ]
    finally:
        caller.http.delete(f"{ENDPOINT}/{answer['dispatch_id']}")
