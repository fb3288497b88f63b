"""Is a session that its client cancels over for good, and one that it sends again at work again?"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from devstack.testing import RunningStack

from .session import ENDPOINT, Caller, active_agents, end_rooms, wait_for
from .test_http_contract import assert_problem

RACES = 24
SPREAD_S = 0.9


def cancel(caller: Caller, dispatch_id: str) -> dict[str, Any]:
    response = caller.http.delete(f"{ENDPOINT}/{dispatch_id}")
    assert response.status_code == 200, response.text
    record: dict[str, Any] = response.json()
    return record


def no_agent_within(stack: RunningStack, rooms: list[str], within_s: float) -> None:
    wait_for(
        f"no agent in {rooms}",
        lambda: None if any(active_agents(stack, *rooms).values()) else True,
        within_s=within_s,
    )


def test_a_cancelled_sessions_agent_leaves_within_two_seconds(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)

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
            caller.wait_for_state(answer["dispatch_id"], *later, within_s=10)
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
    no_agent_within(stack, rooms, 5)
    for _ in range(6):  # nobody comes late
        time.sleep(0.5)
        assert not any(active_agents(stack, *rooms).values())
    assert {caller.record(dispatch_id)["state"] for _, dispatch_id in raced} == {"cancelled"}


def test_a_room_whose_dispatch_was_cancelled_can_be_asked_for_again(
    stack: RunningStack, caller: Caller
) -> None:
    room = f"again-{uuid.uuid4().hex}"
    first = caller.post(room_name=room)
    cancel(caller, first["dispatch_id"])

    second = caller.post(room_name=room)

    assert second["dispatch_id"] != first["dispatch_id"]
    record = caller.wait_for_state(second["dispatch_id"], "joined", within_s=10)
    wait_for(
        "that one agent alone",
        lambda: active_agents(stack, room)[room] == [record["agent_identity"]] or None,
        within_s=5,
    )
    end_rooms(stack, room)


def test_an_ended_session_is_sent_again_and_a_pending_one_is_not(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    again = f"{ENDPOINT}/{answer['dispatch_id']}/redispatch"
    assert "by itself" in assert_problem(caller.http.post(again), 409)["detail"]
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)
    cancel(caller, answer["dispatch_id"])

    response = caller.http.post(again)

    assert response.status_code == 202
    assert response.headers["location"] == answer["status_url"]
    assert (response.json()["state"], response.json()["generation"]) == ("queued", 2)
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)
    wait_for(
        "the second agent alone",
        lambda: (
            active_agents(stack, answer["room_name"])[answer["room_name"]]
            == [record["agent_identity"]]
            or None
        ),
        within_s=5,
    )
    end_rooms(stack, answer["room_name"])


def test_a_joined_session_with_its_agent_is_not_sent_again_and_its_timeline_says_so(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    joined = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)

    response = caller.http.post(f"{ENDPOINT}/{answer['dispatch_id']}/redispatch")

    assert response.status_code == 202
    assert response.json()["timeline"][-1]["event"] == "redispatch_requested"

    def refused() -> dict[str, Any] | None:
        last: dict[str, Any] = caller.record(answer["dispatch_id"])["timeline"][-1]
        return last if last["event"] == "redispatch_refused" else None

    refusal = wait_for("the refusal", refused, within_s=5)
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

    response = caller.http.post(f"{ENDPOINT}/{first['dispatch_id']}/redispatch")

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
