"""Does the endpoint answer as LiveKit's token endpoints do, and refuse clearly what is wrong?"""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt
import pytest
import redis

from tests.support.stacks import RunningStack

from .session import ENDPOINT, Caller, active_agents, end_rooms, wait_for


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """An RFC 9457 problem with that status, and nothing in it that an SDK would connect with."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert not {"server_url", "participant_token"} & problem.keys()
    return problem


def test_the_answer_is_a_token_source_response_and_says_where_to_follow_the_dispatch(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post(room_name="contract-room", participant_identity="ann")
    assert answer.keys() == {
        "server_url",
        "participant_token",
        "room_name",
        "participant_identity",
        "dispatch_id",
        "status",
        "state",
        "status_url",
        "events_url",
    }
    assert answer["server_url"] == stack.livekit_url
    assert answer["room_name"] == "contract-room"
    assert answer["participant_identity"] == "ann"
    assert answer["status"] == answer["state"] == "queued"
    assert answer["status_url"] == f"{stack.web_url}{ENDPOINT}/{answer['dispatch_id']}"
    end_rooms(stack, "contract-room")


def test_the_token_joins_that_one_room_for_ten_minutes_and_nothing_else(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post(
        participant_name="Ann",
        participant_metadata="m",
        participant_attributes={"a": "1"},
    )
    claims = jwt.decode(answer["participant_token"], stack.livekit_api_secret, algorithms=["HS256"])
    assert claims["video"] == {
        "roomJoin": True,
        "room": answer["room_name"],
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }
    assert claims["sub"] == answer["participant_identity"]
    assert claims["name"] == "Ann"
    assert claims["metadata"] == "m"
    assert claims["attributes"] == {"a": "1", "usher.dispatch_id": answer["dispatch_id"]}
    assert 540 < claims["exp"] - time.time() <= 600
    assert not {"roomConfig", "sip", "inference", "observability"} & claims.keys()
    end_rooms(stack, answer["room_name"])


def test_a_missing_room_and_identity_are_made_up_and_cannot_be_guessed(
    stack: RunningStack, caller: Caller
) -> None:
    answers = [caller.post(), caller.post(room_name="", participant_identity="")]
    rooms = {answer["room_name"] for answer in answers}
    identities = {answer["participant_identity"] for answer in answers}
    assert len(rooms) == len(identities) == 2
    assert all(len(name) >= 22 for name in rooms | identities)
    end_rooms(stack, *rooms)


def test_an_empty_body_is_a_request_for_everything_by_default(
    stack: RunningStack, caller: Caller
) -> None:
    response = caller.http.post(ENDPOINT)
    assert response.status_code == 200
    end_rooms(stack, response.json()["room_name"])


def test_fields_that_are_not_known_are_ignored(stack: RunningStack, caller: Caller) -> None:
    answer = caller.post(
        room_name="newer-sdk",
        hologram=True,
        room_config={"agents": [{"agent_name": "session-agent-rag", "hologram": "blue"}]},
    )
    assert answer["room_name"] == "newer-sdk"
    end_rooms(stack, "newer-sdk")


def test_the_same_room_again_gets_a_fresh_token_and_the_same_dispatch(
    stack: RunningStack, caller: Caller
) -> None:
    first = caller.post(room_name="again", participant_identity="ann")
    second = caller.post(room_name="again", participant_identity="bob")
    assert second["dispatch_id"] == first["dispatch_id"]
    assert second["participant_token"] != first["participant_token"]
    end_rooms(stack, "again")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"room_name": 7}, "room_name"),
        ({"participant_identity": ["ann"]}, "participant_identity"),
        ({"participant_name": None}, "participant_name"),
        ({"participant_metadata": {}}, "participant_metadata"),
        ({"participant_attributes": "a=1"}, "participant_attributes"),
        ({"participant_attributes": {"a": 1}}, "participant_attributes.a"),
        ({"room_config": []}, "room_config"),
        ({"room_config": {"agents": {}}}, "room_config.agents"),
        ({"room_config": {"agents": [{}, {}]}}, "room_config.agents"),
        ({"room_config": {"agents": [{"agent_name": 1}]}}, "room_config.agents.0.agent_name"),
        ({"room_name": "r" * 257}, "room_name"),
        ({"roomName": "ж" * 129}, "room_name"),
        ({"agent_name": "session-agent-rag"}, "agent_name"),
        ({"metadata": "m"}, "metadata"),
        ({"room_config": {"egress": {"room": {}}}}, "room_config.egress"),
        ({"participant_identity": "i" * 257}, "participant_identity"),
        ({"participant_name": "n" * 257}, "participant_name"),
        ({"participant_metadata": "m" * 64_001}, "participant_metadata"),
        (
            {"room_config": {"agents": [{"metadata": "é" * 32_001}]}},
            "room_config.agents.0.metadata",
        ),
    ],
)
def test_a_known_field_that_is_wrong_is_named(
    caller: Caller, body: dict[str, object], field: str
) -> None:
    problem = assert_problem(caller.http.post(ENDPOINT, json=body), 422)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert field in problem["detail"]


def test_metadata_of_exactly_64000_bytes_is_taken(stack: RunningStack, caller: Caller) -> None:
    answer = caller.post(
        participant_metadata="é" * 32_000,
        room_config={"agents": [{"metadata": "m" * 64_000}]},
    )
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    assert record["generation"] == 1
    end_rooms(stack, answer["room_name"])


@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"room_name": "a"', b"\xff\xfe"])
def test_a_body_that_is_not_json_is_refused(caller: Caller, body: bytes) -> None:
    assert_problem(caller.http.post(ENDPOINT, content=body), 400)


@pytest.mark.parametrize("body", [b"[]", b"7", b'"text"', b"null"])
def test_a_body_that_is_no_object_is_refused(caller: Caller, body: bytes) -> None:
    assert_problem(caller.http.post(ENDPOINT, content=body), 422)


def test_json_ten_thousand_levels_deep_is_refused(caller: Caller) -> None:
    deep = b'{"room_config":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    response = caller.http.post(ENDPOINT, content=deep)
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


def test_a_body_of_megabytes_is_refused(caller: Caller) -> None:
    assert_problem(caller.http.post(ENDPOINT, content=b" " * 1_000_001), 413)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Basic abc", "Bearer usk_wrong", "Bearer é"]
)
def test_without_a_valid_key_nothing_is_given(
    stack: RunningStack, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    for method, path in (("POST", ENDPOINT), ("GET", f"{ENDPOINT}/dsp_x")):
        response = httpx.request(
            method, stack.web_url + path, headers=headers, content=b"{}", trust_env=False
        )
        assert_problem(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")


def test_an_agent_that_the_client_may_not_use_is_forbidden(caller: Caller) -> None:
    body = {"room_config": {"agents": [{"agent_name": "somebody-elses"}]}}
    problem = assert_problem(caller.http.post(ENDPOINT, json=body), 403)
    assert "session-agent-rag" in problem["detail"]


def test_an_unknown_dispatch_and_an_unknown_path_are_not_found(caller: Caller) -> None:
    assert_problem(caller.http.get(f"{ENDPOINT}/dsp_nobody"), 404)
    assert_problem(caller.http.get("/nowhere"), 404)
    problem = assert_problem(caller.http.delete(ENDPOINT), 405)
    assert "POST" in caller.http.delete(ENDPOINT).headers["allow"], problem


def test_the_participant_token_reads_its_own_dispatch_and_no_other(
    stack: RunningStack, caller: Caller
) -> None:
    mine, other = caller.post(), caller.post()
    headers = {"Authorization": f"Bearer {mine['participant_token']}"}
    own = httpx.get(mine["status_url"], headers=headers, trust_env=False)
    assert own.status_code == 200
    assert own.json()["dispatch_id"] == mine["dispatch_id"]
    assert_problem(httpx.get(other["status_url"], headers=headers, trust_env=False), 401)
    posted = httpx.post(stack.web_url + ENDPOINT, headers=headers, json={}, trust_env=False)
    assert_problem(posted, 401)
    end_rooms(stack, mine["room_name"], other["room_name"])


def test_a_token_signed_with_another_secret_reads_nothing(
    stack: RunningStack, caller: Caller
) -> None:
    mine = caller.post()
    claims = jwt.decode(mine["participant_token"], options={"verify_signature": False})
    forged = jwt.encode(claims, "x" * 40, algorithm="HS256")
    headers = {"Authorization": f"Bearer {forged}"}
    assert_problem(httpx.get(mine["status_url"], headers=headers, trust_env=False), 401)
    end_rooms(stack, mine["room_name"])


def test_health_is_ok_and_readiness_misses_nothing(caller: Caller) -> None:
    assert caller.http.get("/healthz").json() == {"status": "ok"}
    # Nobody serves that one, which no session has unless it asks for it.
    unserved = ["agent-that-is-not-there"]
    ready = {"status": "ready", "not_ready": [], "agents_without_server": unserved}
    # A machine that is busy with something else may keep a part's report back for a moment.
    wait_for(
        "everything ready",
        lambda: caller.http.get("/readyz").json() == ready or None,
        within_s=30,
    )


def test_readiness_names_records_that_nobody_can_read(stack: RunningStack, caller: Caller) -> None:
    with redis.Redis.from_url(stack.redis_url) as client:
        client.hset("usher:dispatch:dsp_broken", mapping={"state": "nonsense"})
        client.zadd("usher:due", {"dsp_broken": 1})
        wait_for(
            "the sweeper's parking it",
            lambda: caller.http.get("/readyz").json().get("parked") == ["dsp_broken"] or None,
            within_s=30,
        )
        client.delete("usher:dispatch:dsp_broken", "usher:parked")


def test_a_second_person_gets_a_token_and_no_second_agent(
    stack: RunningStack, caller: Caller
) -> None:
    first = caller.post(room_name="two-people", participant_identity="ann")
    caller.wait_for_state(first["dispatch_id"], "joined", within_s=30)
    second = caller.post(room_name="two-people", participant_identity="bob")
    assert (second["dispatch_id"], second["status"]) == (first["dispatch_id"], "joined")
    claims = jwt.decode(second["participant_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["video"]["room"]) == ("bob", "two-people")
    time.sleep(2)  # a second agent would be there by now
    assert len(active_agents(stack, "two-people")["two-people"]) == 1
    end_rooms(stack, "two-people")


def test_the_same_request_with_its_key_gets_the_same_and_another_one_a_conflict(
    stack: RunningStack, caller: Caller
) -> None:
    headers = {"Idempotency-Key": f"key-{time.time_ns()}"}
    body = {"participant_name": "Ann", "participant_attributes": {"a": "1", "b": "2"}}
    first = caller.http.post(ENDPOINT, json=body, headers=headers).json()
    same = {"participant_attributes": {"b": "2", "a": "1"}, "participant_name": "Ann", "new": 1}
    again = caller.http.post(ENDPOINT, json=same, headers=headers).json()
    for name in ("dispatch_id", "room_name", "participant_identity", "events_url"):
        assert again[name] == first[name]
    assert again["participant_token"] != first["participant_token"]
    read = {"Authorization": f"Bearer {again['participant_token']}"}
    assert httpx.get(again["status_url"], headers=read, trust_env=False).status_code == 200
    assert_problem(caller.http.post(ENDPOINT, json={}, headers=headers), 409)
    end_rooms(stack, first["room_name"])
    caller.wait_for_state(first["dispatch_id"], "ended", within_s=30)
    late = caller.http.post(ENDPOINT, json=body, headers=headers).json()
    assert (late["dispatch_id"], late["status"]) == (first["dispatch_id"], "ended")


@pytest.mark.parametrize("key", [b"", b"k" * 256, "schlüssel".encode(), b"a\tb"])
def test_an_idempotency_key_that_is_none_is_named(caller: Caller, key: bytes) -> None:
    headers = {b"Idempotency-Key": key}
    problem = assert_problem(caller.http.post(ENDPOINT, json={}, headers=headers), 422)
    assert [error["field"] for error in problem["errors"]] == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=nonsense", "state"),
        ("state=", "state"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=%2B5", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
    ],
)
def test_a_wrong_parameter_of_the_list_is_named(caller: Caller, query: str, field: str) -> None:
    problem = assert_problem(caller.http.get(f"{ENDPOINT}?{query}"), 422)
    assert [error["field"] for error in problem["errors"]] == [field]


def test_the_list_brings_every_dispatch_once_newest_first(
    stack: RunningStack, caller: Caller
) -> None:
    made = [caller.post()["dispatch_id"] for _ in range(5)]
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while cursor is not None or not found:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = caller.http.get(ENDPOINT, params=params).json()
        found += page["dispatches"]
        cursor = page["next_cursor"]
        if made[0] in {dispatch["dispatch_id"] for dispatch in found}:
            break
    assert [d["dispatch_id"] for d in found if d["dispatch_id"] in made] == made[::-1]
    assert "timeline" not in found[0]
    other, *cancelled_ids = made
    for dispatch_id in cancelled_ids:
        caller.http.delete(f"{ENDPOINT}/{dispatch_id}")
    # Asked for by a state that they do not leave any more, and that the other one is not in.
    params = {"state": "cancelled", "limit": 100}
    cancelled = caller.http.get(ENDPOINT, params=params).json()["dispatches"]
    assert {dispatch["state"] for dispatch in cancelled} == {"cancelled"}
    listed = {dispatch["dispatch_id"] for dispatch in cancelled}
    assert {*cancelled_ids} <= listed
    assert other not in listed
    caller.http.delete(f"{ENDPOINT}/{other}")
