"""Does a person find a session on Flower's page by its room?"""

from __future__ import annotations

import asyncio
import uuid

from tests.acceptance.session import Caller, end_rooms
from tests.support.stacks import RunningStack

from .conftest import Browsing
from .flower import TASKS, found_tasks


async def test_who_types_a_room_sees_its_tasks_and_how_the_session_stood(
    stack: RunningStack, browsing: Browsing
) -> None:
    room, caller = f"Room {uuid.uuid4().hex[:8]} (a)", Caller(stack)
    with caller.http:
        dispatch_id = caller.post(room_name=room)["dispatch_id"]
        caller.wait_for_state(dispatch_id, "joined", within_s=15)
    login = {"username": stack.flower_user, "password": stack.flower_password}
    async with browsing.opened(stack.flower_url + TASKS, http_credentials=login) as page:
        rows = await found_tasks(page, f'"kwargs:room={room}"', at_least=2)
        texts = await rows.all_inner_texts()
    await asyncio.to_thread(end_rooms, stack, room)
    assert all(f"{dispatch_id} {room}" in text for text in texts)
    assert browsing.complaints == []
