"""Which requests are taken, and what does a refusal name?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from livekit.api import RoomAgentDispatch, RoomConfiguration
from pydantic import BaseModel, ValidationError

from dispatcher.domain.models import State, TimelineEvent
from tests.support.values import a_dispatch, new_dispatch
from web.contract.answer_schemas import dispatch_answer, event_answer, token_answer
from web.contract.problems import invalid_fields
from web.contract.request_schemas import (
    MAX_METADATA_BYTES,
    MAX_NAME_BYTES,
    AgentRequest,
    RoomConfig,
    TokenRequest,
)

NAMES = ["room_name", "participant_identity", "participant_name"]


def refused(body: dict[str, Any]) -> list[str]:
    """The names of the fields for which `body` is refused."""
    with pytest.raises(ValidationError) as caught:
        TokenRequest.model_validate(body)
    return [error["field"] for error in invalid_fields(caught.value).errors]


def agent(**fields: Any) -> dict[str, Any]:
    return {"room_config": {"agents": [fields]}}


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"room_config": {}}',
        '{"room_config": {"agents": []}}',
        '{"room_config": {"agents": [{}]}}',
        '{"room_config": {"agents": [{"agent_name": "", "metadata": ""}]}}',
        '{"room_name": "", "participant_identity": "", "participant_attributes": {}}',
    ],
)
def test_what_is_empty_is_as_what_is_missing(body: str) -> None:
    request = TokenRequest.model_validate_json(body)

    assert request.agent == AgentRequest()
    assert request.model_dump(exclude={"room_config"}) == TokenRequest().model_dump(
        exclude={"room_config"}
    )


# As releases before the deployment have it, and digest it for an `Idempotency-Key`.
FULL = {
    "room_name": "room",
    "participant_identity": "ann",
    "participant_name": "Ann",
    "participant_metadata": "{}",
    "participant_attributes": {"a": "b"},
    "room_config": {"agents": [{"agent_name": "agent", "metadata": "m"}]},
}


@pytest.mark.parametrize("more", [{}, {"deployment": "staging"}])
def test_every_field_of_a_full_request_arrives(more: dict[str, str]) -> None:
    body = {**FULL, **agent(agent_name="agent", metadata="m", **more)}

    assert TokenRequest.model_validate(body).model_dump() == body


def test_protobufs_camel_case_is_the_same() -> None:
    wanted = RoomAgentDispatch(agent_name="agent", metadata="m")
    camel = {
        "roomName": "room",
        "participantIdentity": "ann",
        "participantName": "Ann",
        "participantMetadata": "{}",
        "participantAttributes": {"a": "b"},
        "roomConfig": MessageToDict(RoomConfiguration(agents=[wanted])),
    }
    assert camel["roomConfig"] == {"agents": [{"agentName": "agent", "metadata": "m"}]}

    assert TokenRequest.model_validate_json(json.dumps(camel)) == TokenRequest.model_validate(FULL)


def test_a_wrong_field_in_camel_case_is_named_as_it_is_documented() -> None:
    assert refused({"roomName": 7, "roomConfig": {"agents": [{"agentName": 8}]}}) == [
        "room_name",
        "room_config.agents.0.agent_name",
    ]


def test_fields_that_we_do_not_know_are_ignored() -> None:
    request = TokenRequest.model_validate(
        {"newer": 1, "room_config": {"hologram": {}, "agents": [{"colour": 5}]}}
    )

    assert request == TokenRequest(room_config={"agents": [{}]})


@pytest.mark.parametrize(
    ("message", "model"), [(RoomConfiguration, RoomConfig), (RoomAgentDispatch, AgentRequest)]
)
def test_every_field_of_livekits_message_is_taken_or_refused_by_name(
    message: type[Message], model: type[BaseModel]
) -> None:
    """When LiveKit's protocol has a new one, it wants to be passed on or refused here."""
    assert set(message.DESCRIPTOR.fields_by_name) <= set(model.model_fields)


@pytest.mark.parametrize("field", [each.name for each in RoomConfiguration.DESCRIPTOR.fields])
def test_what_livekit_knows_of_a_room_and_we_do_not_pass_on_is_refused(field: str) -> None:
    if field == "agents":
        return
    value = {"tags": {"a": "b"}, "egress": {"room": {}}, "name": "preset", "metadata": "m"}
    body = {"room_config": {field: value.get(field, 5)}}

    assert refused(body) == [f"room_config.{field}"]


@pytest.mark.parametrize(
    ("body", "field", "place"),
    [
        ({"agent_name": "a"}, "agent_name", "room_config.agents[0].agent_name"),
        ({"agentName": "a"}, "agent_name", "room_config.agents[0].agent_name"),
        ({"metadata": "m"}, "metadata", "participant_metadata"),
        ({"metadata": "m"}, "metadata", "room_config.agents[0].metadata"),
        ({"deployment": "d"}, "deployment", "room_config.agents[0].deployment"),
        ({"agents": [{}]}, "agents", "room_config"),
        ({"room": "r"}, "room", "room_name"),
        ({"attributes": {"a": "b"}}, "attributes", "participant_attributes"),
        ({"room_config": {"agent_name": "a"}}, "room_config.agent_name", "agents[0]"),
        ({"room_config": {"metadata": "m"}}, "room_config.metadata", "agents[0].metadata"),
        ({"room_config": {"room_name": "r"}}, "room_config.room_name", "top of the request"),
        (agent(room_name="r"), "room_config.agents.0.room_name", "top of the request"),
        (agent(restart_policy="JRP_NEVER"), "room_config.agents.0.restart_policy", "replaces"),
        (agent(restart_policy=1), "room_config.agents.0.restart_policy", "replaces"),
        (agent(attributes={"a": "b"}), "room_config.agents.0.attributes", "metadata"),
    ],
)
def test_a_known_field_in_the_wrong_place_is_refused_and_the_right_place_named(
    body: dict[str, Any], field: str, place: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        TokenRequest.model_validate(body)
    [error] = invalid_fields(caught.value).errors
    assert error["field"] == field
    assert place in error["message"]


def test_what_is_spelled_out_as_its_default_is_as_what_is_missing() -> None:
    """Some encoders of protobuf's JSON write every field."""
    full = RoomConfiguration(agents=[RoomAgentDispatch(agent_name="agent", metadata="m")])
    spelled_out = MessageToDict(
        full, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    assert spelled_out["agents"][0]["restart_policy"] == "JRP_ON_FAILURE"

    request = TokenRequest.model_validate({**FULL, "room_config": {**spelled_out, "egress": None}})

    assert request.model_dump() == FULL


@pytest.mark.parametrize("wrong", [1, 1.5, True, [], {}])
@pytest.mark.parametrize("name", [*NAMES, "participant_metadata"])
def test_a_known_field_of_the_wrong_type_is_named(name: str, wrong: object) -> None:
    assert refused({name: wrong}) == [name]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"participant_attributes": []}, "participant_attributes"),
        ({"participant_attributes": {"a": 1}}, "participant_attributes.a"),
        ({"room_config": []}, "room_config"),
        ({"room_config": {"agents": {}}}, "room_config.agents"),
        ({"room_config": {"agents": ["x"]}}, "room_config.agents.0"),
        ({"room_config": {"agents": [{}, {}]}}, "room_config.agents"),
        (agent(agent_name=7), "room_config.agents.0.agent_name"),
        (agent(metadata={}), "room_config.agents.0.metadata"),
    ],
)
def test_a_nested_field_of_the_wrong_type_is_named_by_its_path(
    body: dict[str, Any], field: str
) -> None:
    assert refused(body) == [field]


def test_every_wrong_field_is_named_at_once() -> None:
    assert refused({"room_name": 1, "participant_name": 2}) == ["room_name", "participant_name"]


@pytest.mark.parametrize("body", ["[]", "7", '"text"', "null"])
def test_a_body_that_is_no_object_is_refused_as_a_whole(body: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TokenRequest.model_validate_json(body)

    assert [error["field"] for error in invalid_fields(caught.value).errors] == ["(body)"]


@pytest.mark.parametrize(
    "metadata",
    ["x" * MAX_METADATA_BYTES, "é" * (MAX_METADATA_BYTES // 2), "🙂" * (MAX_METADATA_BYTES // 4)],
    ids=["one byte", "two bytes", "four bytes"],
)
def test_metadata_of_64000_bytes_is_taken_and_one_more_is_not(metadata: str) -> None:
    assert len(metadata.encode()) == 64_000
    TokenRequest.model_validate({"participant_metadata": metadata, **agent(metadata=metadata)})

    assert refused({"participant_metadata": metadata + "x"}) == ["participant_metadata"]
    assert refused(agent(metadata=metadata + "x")) == ["room_config.agents.0.metadata"]


def test_attributes_may_have_64000_bytes_in_all() -> None:
    TokenRequest.model_validate({"participant_attributes": {"a": "é" * 16_000, "b": "x" * 31_998}})

    assert refused({"participant_attributes": {"a": "é" * 16_000, "b": "x" * 31_999}}) == [
        "participant_attributes"
    ]


@pytest.mark.parametrize("character", ["x", "ж", "🙂"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_256_bytes_is_taken_and_one_more_is_not(name: str, character: str) -> None:
    longest = character * (MAX_NAME_BYTES // len(character.encode()))
    assert len(longest.encode()) == MAX_NAME_BYTES == 256
    TokenRequest.model_validate({name: longest, **agent(agent_name=longest)})

    assert refused({name: longest + "x"}) == [name]
    assert refused(agent(agent_name=longest + "x")) == ["room_config.agents.0.agent_name"]


@pytest.mark.parametrize("wrong", ["a_b", "a b", "a\tb", "\x7f", "d" * 65, "ж" * 33, 5])
def test_a_deployment_that_livekit_refuses_is_refused(wrong: object) -> None:
    TokenRequest.model_validate(agent(deployment="ж" * 32))

    assert refused(agent(deployment=wrong)) == ["room_config.agents.0.deployment"]


@pytest.mark.parametrize("text", ["a\x00b", "\ud83d", "a\udc00"], ids=["NUL", "high", "low"])
def test_text_that_cannot_be_sent_on_is_refused_wherever_it_stands(text: str) -> None:
    for name in [*NAMES, "participant_metadata"]:
        assert refused({name: text}) == [name]
    assert refused({"participant_attributes": {"a": text}}) == ["participant_attributes"]
    assert refused({"participant_attributes": {text: "a"}}) == ["participant_attributes"]
    assert refused(agent(agent_name=text)) == ["room_config.agents.0.agent_name"]
    assert refused(agent(metadata=text)) == ["room_config.agents.0.metadata"]


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(ValidationError) as caught:
        TokenRequest.model_validate({"room_name": ["confidential"], "participant_name": "\x00ssn"})

    with Flask("test").app_context():
        body = invalid_fields(caught.value).response().get_data(as_text=True)
    assert "room_name" in body
    assert "confidential" not in body
    assert "ssn" not in body


def test_the_answer_says_where_to_follow_the_dispatch() -> None:
    answer = token_answer(
        new_dispatch("dsp_1", room_name="room"),
        State.QUEUED,
        server_url="ws://livekit",
        token="jwt",
        identity="ann",
        base_url="http://usher",
    )

    assert json.loads(answer) == {
        "server_url": "ws://livekit",
        "participant_token": "jwt",
        "room_name": "room",
        "participant_identity": "ann",
        "dispatch_id": "dsp_1",
        "status": "queued",
        "state": "queued",
        "status_url": "http://usher/api/v1/dispatches/dsp_1",
        "events_url": "http://usher/api/v1/dispatches/dsp_1/events",
    }


def test_a_record_is_shown_without_what_its_client_put_into_it() -> None:
    shown = dispatch_answer(a_dispatch(agent_metadata="confidential", container="box-1"))

    assert "confidential" not in str(shown)
    assert "acme" not in str(shown)
    assert shown["container"] == "box-1"


def test_a_records_state_is_its_status_too_as_the_answer_to_the_request_has_it() -> None:
    shown = dispatch_answer(a_dispatch(deployment="staging"))

    assert shown["status"] == shown["state"] == "dispatched"
    assert shown["deployment"] == "staging"
    event = TimelineEvent(at_ms=1, event="joined", generation=1)
    streamed = event_answer(event, State.JOINED)
    assert streamed["status"] == streamed["state"] == "joined"


def test_the_container_shown_is_the_one_that_the_agent_is_in() -> None:
    dispatch = a_dispatch(container="box-1", agent_container="box-2")

    assert dispatch_answer(dispatch)["container"] == "box-2"
