"""Does the OpenAPI document hold together?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.domain.models import State
from dispatcher.ledger.dispatches import IDEMPOTENCY_S
from dispatcher.ledger.queries import POSITION
from web.api.openapi import document, schema_name
from web.contract.answer_schemas import ProblemAnswer
from web.contract.problems import Problem
from web.contract.request_schemas import (
    DEFAULT_PAGE,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_PAGE,
    ListQuery,
)
from web.state import idempotency
from web.streaming import sse


def every(node: Any, name: str) -> Iterator[Any]:
    """Each value of that name anywhere in the document."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from every(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from every(value, name)


def test_every_reference_leads_to_a_schema() -> None:
    api = document()
    references = set(every(api, "$ref"))
    assert references
    schemas = {f"#/components/schemas/{name}" for name in api["components"]["schemas"]}
    assert references <= schemas


def test_every_operation_says_who_may_and_what_goes_wrong() -> None:
    api = document()
    for path, item in api["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            assert operation["operationId"], (method, path)
            assert operation["summary"]
            assert "security" in operation
            if not path.startswith("/api/"):
                continue
            responses = operation["responses"]
            assert {"401", "429", "503"} <= responses.keys()
            for status, response in responses.items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]
                if status in ("429", "503"):
                    assert "Retry-After" in response["headers"]


def test_what_is_listed_by_state_is_every_state() -> None:
    assert document()["components"]["schemas"]["State"]["enum"] == list(State)


def parameters(path: str, method: str) -> dict[str, Any]:
    """The parameters of an operation, by name."""
    operation = document()["paths"][path][method]
    return {parameter["name"]: parameter for parameter in operation["parameters"]}


def test_a_list_is_asked_for_as_its_model_takes_it() -> None:
    found = parameters("/api/v1/dispatches", "get")
    assert found.keys() == ListQuery.model_fields.keys()
    limit = found["limit"]["schema"]
    assert limit == {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}
    assert found["cursor"]["schema"] == {"type": "string", "pattern": f"^{POSITION}$"}


def test_an_idempotency_key_is_taken_as_documented() -> None:
    key = parameters("/api/v1/dispatches", "post")[idempotency.HEADER]
    assert key["schema"]["maxLength"] == MAX_IDEMPOTENCY_KEY_CHARS
    assert f"for {IDEMPOTENCY_S // 3600} hours" in key["description"]
    assert f"{idempotency.MIN_PUBLIC_KEY_CHARS} or more characters" in key["description"]


def test_a_stream_is_as_documented() -> None:
    stream = document()["paths"]["/api/v1/dispatches/{dispatch_id}/events"]["get"]
    assert f"comes every {sse.HEARTBEAT_S:.0f} s" in stream["description"]
    assert list(stream["responses"]["200"]["content"]) == [sse.MEDIA_TYPE]


def test_a_problem_is_as_documented() -> None:
    problem = Problem(422, "d", errors=[{"field": "f", "message": "m"}])
    for each in (problem, Problem(404, "d")):
        sent = each.response().get_json()
        assert ProblemAnswer.model_validate(sent).model_dump(exclude_unset=True) == sent


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"$ref": "#/components/schemas/State"}, "State"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        ({"enum": ["a", "b"], "type": "string"}, "a | b"),
        ({"const": "a"}, "a"),
        ({}, "anything"),
    ],
)
def test_a_schema_has_a_name_for_people(schema: dict[str, Any], name: str) -> None:
    assert schema_name(schema) == name
