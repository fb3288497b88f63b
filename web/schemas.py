"""What may a caller send, and what does it get?

The request is LiveKit's `TokenSourceRequest` in its proto field names, as every LiveKit client SDK
sends it. Fields that we do not know are ignored: newer SDKs send more. A known field of the wrong
type is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr

from dispatcher.models import Dispatch, NewDispatch, State

MAX_NAME_CHARS = 256
MAX_METADATA_BYTES = 64_000


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


def _attributes(attributes: dict[str, str]) -> dict[str, str]:
    size = sum(len(_text(part).encode()) for pair in attributes.items() for part in pair)
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"are {size} bytes long, at most {MAX_METADATA_BYTES} are allowed")
    return attributes


Name = Annotated[StrictStr, Field(max_length=MAX_NAME_CHARS), AfterValidator(_text)]
Metadata = Annotated[StrictStr, AfterValidator(_metadata)]
Attributes = Annotated[dict[StrictStr, StrictStr], AfterValidator(_attributes)]


class AgentRequest(BaseModel):
    """One entry of `room_config.agents`; protobuf's JSON leaves empty fields out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    agent_name: Name = ""
    metadata: Metadata = ""


class RoomConfig(BaseModel):
    """The part of LiveKit's `RoomConfiguration` that we act on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    agents: Annotated[list[AgentRequest], Field(max_length=1)] = []


class TokenRequest(BaseModel):
    """Body of `POST /api/v1/dispatches`: everything is optional."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    room_name: Name = ""
    participant_identity: Name = ""
    participant_name: Name = ""
    participant_metadata: Metadata = ""
    participant_attributes: Attributes = {}
    room_config: RoomConfig = RoomConfig()

    @property
    def agent(self) -> AgentRequest:
        """The agent that is asked for; an empty name means the client's default."""
        return self.room_config.agents[0] if self.room_config.agents else AgentRequest()


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A dispatch that the caller can rely on: a new one, or the live one of its room."""

    dispatch_id: str
    state: State
    room_name: str
    agent_name: str
    client_id: str

    @classmethod
    def of(cls, new: NewDispatch, *, dispatch_id: str, state: State) -> Accepted:
        """What has become of `new`: itself, or the live dispatch of its room."""
        return cls(
            dispatch_id=dispatch_id,
            state=state,
            room_name=new.room_name,
            agent_name=new.agent_name,
            client_id=new.client_id,
        )


def token_answer(
    *, server_url: str, token: str, identity: str, accepted: Accepted, base_url: str
) -> dict[str, str]:
    """Body of the 200: LiveKit's `TokenSourceResponse` and where to follow the dispatch."""
    status_url = f"{base_url}/api/v1/dispatches/{accepted.dispatch_id}"
    return {
        "server_url": server_url,
        "participant_token": token,
        "room_name": accepted.room_name,
        "participant_identity": identity,
        "dispatch_id": accepted.dispatch_id,
        "status": accepted.state,
        "status_url": status_url,
        "events_url": f"{status_url}/events",
    }


def dispatch_answer(dispatch: Dispatch) -> dict[str, Any]:
    """Body of `GET /api/v1/dispatches/{id}`: the record, without what its client put into it."""
    return {
        "dispatch_id": dispatch.dispatch_id,
        "state": dispatch.state,
        "room_name": dispatch.room_name,
        "agent_name": dispatch.agent_name,
        "container": dispatch.agent_container or dispatch.container or None,
        "generation": dispatch.generation,
        "created_at_ms": dispatch.created_at_ms,
        "deadline_at_ms": dispatch.deadline_at_ms,
        "agent_identity": dispatch.agent_identity or None,
        "joined_at_ms": dispatch.joined_at_ms,
        "time_to_join_ms": dispatch.time_to_join_ms,
        "failure_reason": dispatch.failure_reason or None,
        "failure_message": dispatch.failure_message or None,
        "attempts": [
            {
                "generation": attempt.generation,
                "livekit_dispatch_id": attempt.livekit_dispatch_id or None,
                "tries": attempt.tries,
                "errors": list(attempt.errors),
                "outcome": attempt.outcome or None,
                "reason": attempt.reason or None,
            }
            for attempt in dispatch.attempts
        ],
        "timeline": [
            {
                "at_ms": event.at_ms,
                "event": event.event,
                "generation": event.generation,
                "detail": event.detail,
            }
            for event in dispatch.timeline
        ],
    }
