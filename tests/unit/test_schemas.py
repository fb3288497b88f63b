"""Which requests are taken, and what does a refusal name?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from pydantic import ValidationError

from dispatcher.models import State
from tests.support import a_dispatch
from web.problems import invalid_fields
from web.schemas import (
    MAX_METADATA_BYTES,
    MAX_NAME_CHARS,
    Accepted,
    AgentRequest,
    TokenRequest,
    dispatch_answer,
    token_answer,
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


def test_every_field_of_a_full_request_arrives() -> None:
    body = {
        "room_name": "room",
        "participant_identity": "ann",
        "participant_name": "Ann",
        "participant_metadata": "{}",
        "participant_attributes": {"a": "b"},
        "room_config": {"agents": [{"agent_name": "agent", "metadata": "m"}]},
    }

    assert TokenRequest.model_validate(body).model_dump() == body


def test_fields_that_we_do_not_know_are_ignored() -> None:
    request = TokenRequest.model_validate(
        {"newer": 1, "room_config": {"egress": {}, "agents": [{"deployment": 5}]}}
    )

    assert request == TokenRequest(room_config={"agents": [{}]})


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


@pytest.mark.parametrize("character", ["x", "é", "🙂"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_256_characters_is_taken_and_one_more_is_not(name: str, character: str) -> None:
    TokenRequest.model_validate({name: character * MAX_NAME_CHARS})

    assert MAX_NAME_CHARS == 256
    assert refused({name: character * (MAX_NAME_CHARS + 1)}) == [name]


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
        server_url="ws://livekit",
        token="jwt",
        identity="ann",
        accepted=Accepted(
            dispatch_id="dsp_1", state=State.QUEUED, room_name="room", agent_name="a", client_id="c"
        ),
        base_url="http://usher",
    )

    assert json.loads(answer) == {
        "server_url": "ws://livekit",
        "participant_token": "jwt",
        "room_name": "room",
        "participant_identity": "ann",
        "dispatch_id": "dsp_1",
        "status": "queued",
        "status_url": "http://usher/api/v1/dispatches/dsp_1",
        "events_url": "http://usher/api/v1/dispatches/dsp_1/events",
    }


def test_a_record_is_shown_without_what_its_client_put_into_it() -> None:
    shown = dispatch_answer(a_dispatch(agent_metadata="confidential", container="box-1"))

    assert "confidential" not in str(shown)
    assert "acme" not in str(shown)
    assert shown["container"] == "box-1"


def test_the_container_shown_is_the_one_that_the_agent_is_in() -> None:
    dispatch = a_dispatch(container="box-1", agent_container="box-2")

    assert dispatch_answer(dispatch)["container"] == "box-2"
