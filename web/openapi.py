"""What can be asked of Usher, in words that programs and people read?

`/openapi.json` is made, once per process, from the models that validate requests and shape the
answers; `/docs` shows the same document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

from flask import Blueprint, Response, request
from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dispatcher.ledger import IDEMPOTENCY_S
from web import events, problems
from web.idempotency import HEADER, MIN_PUBLIC_KEY_CHARS
from web.page_files import under_prefix
from web.schemas import (
    MAX_IDEMPOTENCY_KEY_CHARS,
    DispatchPage,
    DispatchRecord,
    Health,
    ListQuery,
    ProblemAnswer,
    Readiness,
    ServerSentEvent,
    StreamEvent,
    TokenAnswer,
    TokenRequest,
)

blueprint = Blueprint("openapi", __name__)

VERSION: Final = "1"
_BASE: Final = "/api/v1/dispatches"
_ONE: Final = f"{_BASE}/{{dispatch_id}}"

_KEY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}]
_KEY_OR_TOKEN: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"participantToken": []}]

_PROBLEMS: Final = {
    400: "The body is not JSON, or the request is not HTTP as it should be.",
    401: "No key, or nobody's; of a participant token: it is not this dispatch's.",
    403: "The key may not do this: the agent, or the way, is not its client's.",
    404: "The caller has no such dispatch.",
    409: "It contradicts what is there already; `detail` says what.",
    410: "Its record cannot be read any more, and nobody works on it: ask for a new session.",
    413: "The body is too large.",
    422: "Fields are wrong; `errors` names every one.",
    429: "Too many at once or in a row; `Retry-After` says when to come back.",
    503: "Redis does not answer, or there is no room; `Retry-After` says when to come back.",
}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
}
_CHALLENGE: Final = {
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string"},
    }
}
_HEADERS: Final = {401: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}

_REQUEST_EXAMPLES: Final = {
    "default": {"summary": "Everything by default", "value": {}},
    "room": {
        "summary": "A room, a person, and something for the agent",
        "value": {
            "room_name": "support-17",
            "participant_identity": "ann",
            "participant_name": "Ann",
            "room_config": {"agents": [{"metadata": '{"language": "en"}'}]},
        },
    },
}
_RECORD_EXAMPLE: Final[dict[str, Any]] = {
    "dispatch_id": "dsp_BWA-BKOFuK9gGdfLrxlpdg",
    "state": "joined",
    "status": "joined",
    "room_name": "support-17",
    "agent_name": "session-agent-rag",
    "deployment": None,
    "container": "box-1",
    "generation": 1,
    "created_at_ms": 1_790_000_000_000,
    "deadline_at_ms": 1_790_000_020_000,
    "agent_identity": "agent-AJ_YkvrAkw9Xgdy",
    "joined_at_ms": 1_790_000_000_308,
    "time_to_join_ms": 308,
    "failure_reason": None,
    "failure_message": None,
    "attempts": [
        {
            "generation": 1,
            "livekit_dispatch_id": "AD_eEx8UQ7XnyA2",
            "tries": 1,
            "errors": [],
            "outcome": "joined",
            "reason": None,
        }
    ],
    "timeline": [
        {
            "at_ms": 1_790_000_000_000,
            "event": "queued",
            "generation": 1,
            "detail": {"by": "http"},
        }
    ],
}
_STREAM_EXAMPLE: Final = (
    "retry: 1000\n\nid: 1\nevent: snapshot\ndata: {the record}\n\n"
    'id: 2\nevent: timeline\ndata: {"at_ms": 1790000000016, "event": "dispatching", '
    '"generation": 1, "detail": {}, "state": "dispatching"}\n\n'
    ": still here\n\nid: 9\nevent: end\ndata: {the record}\n\n"
)

_DISPATCH_ID: Final = {
    "name": "dispatch_id",
    "in": "path",
    "required": True,
    "description": "`dispatch_id` of the answer to the request for the session.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    "example": "dsp_BWA-BKOFuK9gGdfLrxlpdg",
}
_IDEMPOTENCY_KEY: Final = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The same key with the same body gets the same dispatch, room and identity "
    f"again, with a fresh token, for {IDEMPOTENCY_S // 3600} hours; with another body a 409. With "
    f"a publishable API key it has {MIN_PUBLIC_KEY_CHARS} or more characters that nobody can "
    "guess, and the identity is another each time.",
    "schema": {
        "type": "string",
        "pattern": "^[ -~]+$",
        "minLength": 1,
        "maxLength": MAX_IDEMPOTENCY_KEY_CHARS,
    },
}
_LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The last id that a lost connection has brought: the stream goes on after it, "
    "without a snapshot. What is no id of ours is ignored.",
    "schema": {"type": "string"},
}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _answer(
    description: str, model: type[BaseModel], *, example: Any = None, **more: Any
) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _ref(model)}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}, **more}


def _problems(statuses: Iterable[int]) -> dict[str, Any]:
    return {
        str(status): {
            "description": _PROBLEMS[status],
            "content": {problems.MEDIA_TYPE: {"schema": _ref(ProblemAnswer)}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Its fields as parameters; none of them is required, and none may be null."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parameters = []
    for name, field in schema["properties"].items():
        options = [option for option in field.pop("anyOf", [field]) if option != {"type": "null"}]
        about = {"description": field["description"]} if "description" in field else {}
        about |= (
            {"description": options[0].pop("description")} if "description" in options[0] else {}
        )
        default = field.pop("default", None)
        if default is not None:
            options[0]["default"] = default
        options[0].pop("title", None)
        parameters.append(
            {"name": name, "in": "query", "required": False, "schema": options[0], **about}
        )
    return parameters


def _operations() -> dict[str, dict[str, Any]]:
    record = {"example": _RECORD_EXAMPLE}
    return {
        _BASE: {
            "post": {
                "operationId": "createDispatch",
                "summary": "Ask for a session: a token at once, and the agent is dispatched",
                "description": "A LiveKit token endpoint: `TokenSource.endpoint` of LiveKit's "
                "client SDKs takes it as it is. Field names may be protobuf's camelCase as well "
                "(`roomName`). Fields that are not known are ignored; one of LiveKit's that is not "
                "passed on, or that stands in the wrong place, is a 422 that says so. While a "
                "dispatch of the same room and agent is live, it is answered again with a fresh "
                "token: a second person gets in, a second agent does not come.",
                "security": _KEY,
                "parameters": [_IDEMPOTENCY_KEY],
                "requestBody": {
                    "required": False,
                    "content": {
                        "application/json": {
                            "schema": _ref(TokenRequest),
                            "examples": _REQUEST_EXAMPLES,
                        }
                    },
                },
                "responses": {
                    "200": _answer("A token, and where to follow the dispatch.", TokenAnswer),
                    **_problems((400, 401, 403, 409, 413, 422, 429, 503)),
                },
            },
            "get": {
                "operationId": "listDispatches",
                "summary": "The caller's own dispatches, newest first",
                "description": "New ones do not disturb the pages of a list that is being read.",
                "security": _KEY,
                "parameters": _query_parameters(ListQuery),
                "responses": {
                    "200": _answer("One page.", DispatchPage),
                    **_problems((400, 401, 403, 422, 429, 503)),
                },
            },
        },
        _ONE: {
            "parameters": [_DISPATCH_ID],
            "get": {
                "operationId": "showDispatch",
                "summary": "The record of a dispatch: state, attempts, timeline",
                "security": _KEY_OR_TOKEN,
                "responses": {
                    "200": _answer("The record.", DispatchRecord, **record),
                    **_problems((400, 401, 403, 404, 410, 429, 503)),
                },
            },
            "delete": {
                "operationId": "cancelDispatch",
                "summary": "Cancel a dispatch: no agent comes, and one that is there leaves",
                "description": "It is `cancelled` with the answer, and the agent is gone within "
                "two seconds. Cancelling again, or one that has ended, changes nothing and is no "
                "error.",
                "security": _KEY,
                "responses": {
                    "200": _answer("The record as it is now.", DispatchRecord, **record),
                    **_problems((400, 401, 403, 404, 410, 429, 503)),
                },
            },
        },
        f"{_ONE}/events": {
            "parameters": [_DISPATCH_ID],
            "get": {
                "operationId": "followDispatch",
                "summary": "The record, then what happens to it, as server-sent events",
                "description": "`snapshot`: the record (DispatchRecord). `timeline`: one event "
                "(StreamEvent). `end`: the record as it has ended; then the stream ends. An id is "
                "an event's number in the timeline. A comment comes every "
                f"{events.HEARTBEAT_S:.0f} s; after an hour the stream is cut, go on with "
                "`Last-Event-ID`. A browser's EventSource sends no headers, so read it with "
                "`fetch`; a key or token in the URL is not taken.",
                "security": _KEY_OR_TOKEN,
                "parameters": [_LAST_EVENT_ID],
                "responses": {
                    "200": {
                        "description": "The stream; the schema is that of one event.",
                        "content": {
                            events.MEDIA_TYPE: {
                                "schema": _ref(ServerSentEvent),
                                "example": _STREAM_EXAMPLE,
                            }
                        },
                    },
                    "204": {"description": "It has ended, and the caller has had everything."},
                    **_problems((400, 401, 403, 404, 410, 429, 503)),
                },
            },
        },
        f"{_ONE}/redispatch": {
            "parameters": [_DISPATCH_ID],
            "post": {
                "operationId": "redispatch",
                "summary": "Send a dispatch again that has ended, or whose agent may be gone",
                "description": "One that has ended starts anew at once. Of a joined one a worker "
                "first asks LiveKit whether its agent is there: if so it stays as it is, and the "
                "timeline says `redispatch_refused`. It counts as a request of the client's, and "
                "one that has ended as one more of its sessions: over its limits it is refused.",
                "security": _KEY,
                "responses": {
                    "202": _answer(
                        "Accepted; the record as it is now.",
                        DispatchRecord,
                        **record,
                        headers={
                            "Location": {
                                "description": "Where to look what becomes of it.",
                                "required": True,
                                "schema": {"type": "string", "format": "uri"},
                            }
                        },
                    ),
                    **_problems((400, 401, 403, 404, 409, 410, 429, 503)),
                },
            },
        },
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "Does this process answer?",
                "security": [],
                "responses": {"200": _answer("It does.", Health)},
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "What has been counted, for Prometheus",
                "description": "Of every client, so not for their keys: for the operator (basic "
                "authentication, or the password as a bearer token). With USHER_METRICS_LOCAL "
                "also for callers on the machine itself.",
                "security": [],
                "responses": {
                    "200": {
                        "description": "The metrics; docs/metrics.md lists them.",
                        "content": {
                            media_type: {"schema": {"type": "string"}}
                            for media_type in ("text/plain", "application/openmetrics-text")
                        },
                    },
                    **_problems((401, 429)),
                },
            }
        },
        "/readyz": {
            "get": {
                "operationId": "readiness",
                "summary": "Is everything there that a session needs?",
                "description": "With several clients their names are for the operator (basic "
                "authentication); others read `livekit` and `agent`.",
                "security": [],
                "responses": {
                    "200": _answer("Requests can be taken.", Readiness),
                    "503": _answer("Requests cannot be taken.", Readiness),
                    **_problems((401, 429)),
                },
            }
        },
    }


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    _, definitions = models_json_schema(
        [
            (TokenRequest, "validation"),
            (ListQuery, "validation"),
            *(
                (model, "serialization")
                for model in (
                    TokenAnswer,
                    DispatchPage,
                    DispatchRecord,
                    ServerSentEvent,
                    StreamEvent,
                    Health,
                )
            ),
            # What has a default may be left out of these.
            (ProblemAnswer, "validation"),
            (Readiness, "validation"),
        ],
        by_alias=False,  # protobuf's camelCase is taken, too; the contract's names are these
        ref_template="#/components/schemas/{model}",
    )
    schemas = dict(definitions["$defs"])
    del schemas["ListQuery"]  # its fields are parameters
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Usher",
            "version": VERSION,
            "description": "Puts exactly one LiveKit agent into a room. Every error is an "
            "`application/problem+json` (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _operations(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The client's API key.",
                },
                "participantToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "`participant_token`: reads its own dispatch, for as long as "
                    "it is valid.",
                },
            },
        },
    }


@lru_cache(maxsize=16)
def _document_text(prefix: str) -> str:
    return json.dumps({**document(), "servers": [{"url": prefix or "/"}]})


@cache
def _page() -> str:
    text = (resources.files("web") / "pages" / "docs.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["schema_name"] = schema_name
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2)
    return environment.from_string(text).render(api=json.loads(_document_text("")))


def schema_name(schema: Mapping[str, Any]) -> str:
    """How a person calls a schema: "list of DispatchSummary", "string or null"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(schema_name(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {schema_name(schema['items'])}"
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    return str(schema.get("type", "anything"))


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    return Response(_document_text(request.root_path), mimetype="application/json")


@blueprint.get("/docs")
def docs() -> Response:
    """The same document for people; no script in it."""
    return Response(under_prefix(_page(), request.root_path), mimetype="text/html")


@blueprint.get("/docs.css")
def docs_style() -> Response:
    """Its looks."""
    text = (resources.files("web") / "pages" / "docs.css").read_text("utf-8")
    return Response(text, mimetype="text/css", headers={"Cache-Control": "max-age=3600"})
