"""Pydantic models of requests: the body of a request for a session, the query of a list.

The body is LiveKit's `TokenSourceRequest` in protobuf's JSON, as every LiveKit client SDK sends
it. Unknown fields are ignored: newer SDKs send more. A known field is an error when it has the
wrong type, is in the wrong place, or is not passed on (`web/contract/refused_fields.py`).
"""

from __future__ import annotations

import operator
from typing import Annotated, Final, TypeVar

from flask import request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StrictStr,
    ValidationError,
    WithJsonSchema,
)

from dispatcher.domain.models import State
from dispatcher.ledger.queries import POSITION, Position
from web.contract.problems import invalid_fields
from web.contract.refused_fields import RefusedInAgent, RefusedInRequest, RefusedInRoomConfig

QueryT = TypeVar("QueryT", bound=BaseModel)

# LiveKit's own limits of a room's name, an identity and a name (livekit-server, `LimitConfig`), in
# bytes of UTF-8; agent names have the same.
MAX_NAME_BYTES: Final = 256
MAX_DEPLOYMENT_BYTES: Final = 64
MAX_METADATA_BYTES = 64_000
MAX_ATTRIBUTES: Final = 256
MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 50
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255


def _metadata(text: str) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"is {size} bytes long, at most {MAX_METADATA_BYTES} are allowed")
    return _text(text)


def _text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode: it has an unpaired surrogate") from None
    if "\x00" in text:
        raise ValueError("has a NUL character")
    return text


def _name(text: str) -> str:
    size = len(_text(text).encode())
    if size > MAX_NAME_BYTES:
        raise ValueError(f"is {size} bytes long in UTF-8, LiveKit takes at most {MAX_NAME_BYTES}")
    return text


def _deployment(text: str) -> str:
    """Check it as LiveKit's `ValidateDeployment` does (protocol, agent/environment.go)."""
    size = len(_text(text).encode())
    if size > MAX_DEPLOYMENT_BYTES:
        raise ValueError(f"is {size} bytes long, LiveKit takes at most {MAX_DEPLOYMENT_BYTES}")
    if any(character <= " " or character in "_\x7f" for character in text):
        raise ValueError("has an underscore, white space or a control character in it")
    return text


def _attributes(attributes: dict[str, str]) -> dict[str, str]:
    size = sum(len(_text(part).encode()) for pair in attributes.items() for part in pair)
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"are {size} bytes long, at most {MAX_METADATA_BYTES} are allowed")
    return attributes


def _page_size(text: str) -> str:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(MAX_PAGE)):
        raise ValueError(f"is not a number from 1 to {MAX_PAGE}")
    return text


_NO_NUL: Final = "^[^\\u0000]*$"
_BYTES: Final = {"type": "string", "pattern": _NO_NUL, "maxLength": MAX_METADATA_BYTES}


def _schema(most: int, description: str, pattern: str = _NO_NUL) -> WithJsonSchema:
    """Return what JSON Schema can say of a text; it counts characters, not bytes."""
    schema = {"type": "string", "pattern": pattern, "maxLength": most, "description": description}
    return WithJsonSchema(schema)


Name = Annotated[
    StrictStr,
    AfterValidator(_name),
    _schema(MAX_NAME_BYTES, f"At most {MAX_NAME_BYTES} bytes of UTF-8."),
]
Deployment = Annotated[
    StrictStr,
    AfterValidator(_deployment),
    _schema(
        MAX_DEPLOYMENT_BYTES,
        "Which deployment of the agent: `LIVEKIT_AGENT_DEPLOYMENT` of its agent servers. Empty: "
        "those that have none.",
        "^[!-^`-~\\u0080-\\uffff]*$",
    ),
]
Metadata = Annotated[
    StrictStr,
    AfterValidator(_metadata),
    _schema(MAX_METADATA_BYTES, f"At most {MAX_METADATA_BYTES:,} bytes of UTF-8."),
]
Attributes = Annotated[
    dict[StrictStr, StrictStr],
    # Stop at the first wrong one: to look at all of 59,000 takes 60 ms.
    FailFast(),
    Field(max_length=MAX_ATTRIBUTES),
    AfterValidator(_attributes),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_ATTRIBUTES,
            "propertyNames": _BYTES,
            "additionalProperties": _BYTES,
            "description": f"At most {MAX_METADATA_BYTES:,} bytes of UTF-8 together.",
        }
    ),
]


class ListQuery(BaseModel):
    """Query of `GET /api/v1/dispatches`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: Annotated[State | None, Field(description="Only dispatches in this state.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_page_size)] = DEFAULT_PAGE
    cursor: Annotated[
        Position | None,
        BeforeValidator(Position.parse),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": f"^{POSITION}$",
                "description": "`next_cursor` of the page before.",
            }
        ),
    ] = None


def query(model: type[QueryT]) -> QueryT:
    """Return the present request's query; a wrong field is a 422."""
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid_fields(error) from None


class AgentRequest(RefusedInAgent):
    """One entry of `room_config.agents`; protobuf's JSON leaves empty fields out."""

    agent_name: Name = ""
    metadata: Metadata = ""
    # Left out where it is empty, so that a request has the digest that older releases know.
    deployment: Annotated[Deployment, Field(exclude_if=operator.not_)] = ""


class RoomConfig(RefusedInRoomConfig):
    """The part of LiveKit's `RoomConfiguration` that we act on."""

    agents: list[AgentRequest] = Field(default_factory=list, max_length=1)


_NO_ROOM_CONFIG: Final = RoomConfig()
_NO_AGENT: Final = AgentRequest()


class TokenRequest(RefusedInRequest):
    """Body of `POST /api/v1/dispatches`: everything is optional."""

    room_name: Name = ""
    participant_identity: Name = ""
    participant_name: Name = ""
    participant_metadata: Metadata = ""
    # pydantic makes deep copies of defaults: 13 us for a request of 16 us.
    participant_attributes: Attributes = Field(default_factory=dict)
    room_config: RoomConfig = Field(default_factory=lambda: _NO_ROOM_CONFIG)

    @property
    def agent(self) -> AgentRequest:
        """The agent that is asked for; an empty name means the client's default."""
        return self.room_config.agents[0] if self.room_config.agents else _NO_AGENT
