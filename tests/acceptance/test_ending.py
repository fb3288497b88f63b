"""Is a session that its client cancels over for good, and one that it sends again at work again?"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.support.stacks import RunningStack

from .session import ENDPOINT, Caller, active_agents, end_rooms, wait_for
from .test_http_contract import assert_problem

RACES = 24
SPREAD_S = 0.9


def cancel(caller: Caller, dispatch_id: str) -> dict[str, Any]:
    response = caller.http.delete(f"{ENDPOINT}/{dispatch_id}")
    assert response.status_code == 200, response.text
    record: dict[str, Any] = response.json()
    return record


def event_of(record: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The event of that name in the record's timeline."""
    timeline: list[dict[str, Any]] = record["timeline"]
    return next((event for event in timeline if event["event"] == name), None)


def no_agent_within(stack: RunningStack, rooms: list[str], within_s: float) -> None:
    wait_for(
        f"no agent in {rooms}",
        lambda: None if any(active_agents(stack, *rooms).values()) else True,
        within_s=within_s,
    )


def empty_for_good(stack: RunningStack, rooms: list[str], *, for_s: float = 3) -> None:
    """Return when the rooms have had no agent for so long.

    An agent that was connecting when its session was cancelled may be listed for a moment: it
    looks at the record when it is there, and goes.
    """
    empty_since = time.monotonic()

    def look() -> bool | None:
        nonlocal empty_since
        if any(active_agents(stack, *rooms).values()):
            empty_since = time.monotonic()
        return time.monotonic() - empty_since >= for_s or None

    wait_for(f"no agent in {rooms} any more", look, within_s=30)


def test_a_cancelled_sessions_agent_leaves_within_two_seconds(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    caller.wait_until_agent_said_so(answer["dispatch_id"])
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)

    record = cancel(caller, answer["dispatch_id"])

    no_agent_within(stack, [answer["room_name"]], 2)
    assert (record["state"], record["failure_reason"]) == ("cancelled", "cancelled_by_client")
    assert record["timeline"][-1]["event"] == "cancelled_by_client"
    again = cancel(caller, answer["dispatch_id"])
    assert again == record == caller.record(answer["dispatch_id"])


def test_cancelling_wins_at_every_moment_of_a_dispatch(stack: RunningStack, caller: Caller) -> None:
    moments = ("dispatched", "accepted", "joined")

    def race(number: int) -> tuple[str, str]:
        answer = caller.post()
        if number % 2:
            time.sleep(SPREAD_S * number / RACES)
        else:
            state = moments[number // 2 % len(moments)]
            later = moments[moments.index(state) :]
            caller.wait_for_state(answer["dispatch_id"], *later, within_s=30)
        cancel(caller, answer["dispatch_id"])
        return answer["room_name"], answer["dispatch_id"]

    with ThreadPoolExecutor(6) as pool:
        raced = list(pool.map(race, range(RACES)))

    rooms = [room for room, _ in raced]
    met: set[str] = set()
    for _, dispatch_id in raced:
        timeline = caller.record(dispatch_id)["timeline"]
        met.add(timeline[-2]["event"])
    print(f"cancelled after: {sorted(met)}")
    assert len(met) >= 3
    empty_for_good(stack, rooms)
    assert {caller.record(dispatch_id)["state"] for _, dispatch_id in raced} == {"cancelled"}


def test_a_room_whose_dispatch_was_cancelled_can_be_asked_for_again(
    stack: RunningStack, caller: Caller
) -> None:
    room = f"again-{uuid.uuid4().hex}"
    first = caller.post(room_name=room)
    cancel(caller, first["dispatch_id"])

    second = caller.post(room_name=room)

    assert second["dispatch_id"] != first["dispatch_id"]
    record = caller.wait_for_state(second["dispatch_id"], "joined", within_s=30)
    wait_for(
        "that one agent alone",
        lambda: active_agents(stack, room)[room] == [record["agent_identity"]] or None,
        within_s=30,
    )
    end_rooms(stack, room)


def test_an_ended_session_is_sent_again_and_a_pending_one_is_not(
    stack: RunningStack, caller: Caller
) -> None:
    pending = caller.post(room_config={"agents": [{"agent_name": "agent-that-is-not-there"}]})
    refused = caller.http.post(f"{ENDPOINT}/{pending['dispatch_id']}/redispatch")
    assert "by itself" in assert_problem(refused, 409)["detail"]
    cancel(caller, pending["dispatch_id"])

    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    cancel(caller, answer["dispatch_id"])

    response = caller.send_again(answer["dispatch_id"])

    assert response.status_code == 202
    assert response.headers["location"] == answer["status_url"]
    assert response.json()["generation"] == 2
    assert response.json()["state"] != "cancelled"  # a quick worker has begun by now
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    wait_for(
        "the second agent alone",
        lambda: (
            active_agents(stack, answer["room_name"])[answer["room_name"]]
            == [record["agent_identity"]]
            or None
        ),
        within_s=30,
    )
    end_rooms(stack, answer["room_name"])


def test_a_joined_session_with_its_agent_is_not_sent_again_and_its_timeline_says_so(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    joined = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)

    response = caller.http.post(f"{ENDPOINT}/{answer['dispatch_id']}/redispatch")

    assert response.status_code == 202
    # Not last of all: the worker's answer, or the agent's own word, may be there as well.
    assert event_of(response.json(), "redispatch_requested") is not None
    refusal = wait_for(
        "the refusal",
        lambda: event_of(caller.record(answer["dispatch_id"]), "redispatch_refused"),
        within_s=30,
    )
    assert joined["agent_identity"] in refusal["detail"]["message"]
    assert caller.record(answer["dispatch_id"])["generation"] == 1
    end_rooms(stack, answer["room_name"])


def test_a_room_that_another_dispatch_serves_by_now_is_not_sent_a_second_agent(
    stack: RunningStack, caller: Caller
) -> None:
    room = f"taken-{uuid.uuid4().hex}"
    first = caller.post(room_name=room)
    cancel(caller, first["dispatch_id"])
    second = caller.post(room_name=room)

    response = caller.send_again(first["dispatch_id"])

    assert second["dispatch_id"] in assert_problem(response, 409)["detail"]
    end_rooms(stack, room)


def test_a_participant_may_neither_cancel_nor_send_again_nor_list(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    headers = {"Authorization": f"Bearer {answer['participant_token']}"}
    own = answer["status_url"]
    for method, url in (
        ("DELETE", own),
        ("POST", f"{own}/redispatch"),
        ("GET", stack.web_url + ENDPOINT),
    ):
        assert_problem(httpx.request(method, url, headers=headers, trust_env=False), 401)
    for method, path in (("DELETE", "dsp_nobody"), ("POST", "dsp_nobody/redispatch")):
        assert_problem(caller.http.request(method, f"{ENDPOINT}/{path}"), 404)
    end_rooms(stack, answer["room_name"])
