"""Fields that the token endpoint refuses by name: in the wrong place, or not passed on.

An unknown field is ignored, because newer SDKs send more. A field that LiveKit or Usher knows is
never dropped in silence: its sender would wait for an effect that does not come. A test compares
these classes with LiveKit's own messages (`livekit.protocol`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticOmit, core_schema


@dataclass(frozen=True)
class Refused:
    """Annotation of a field that may only have its default value, which means leaving it out.

    protobuf's JSON may spell out defaults: `null`, `""`, `0`, `false`, `[]`, `{}`, and `default`.
    """

    why: str
    default: str = ""

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        raise PydanticOmit  # not a part of the contract

    def _check(self, value: object) -> None:
        if value and value != self.default:
            raise PydanticCustomError("refused", self.why)


class Message(BaseModel):
    """A message in protobuf's JSON: field names in snake_case or in camelCase."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=AliasGenerator(validation_alias=to_camel),
        validate_by_name=True,
        validate_by_alias=True,
        loc_by_alias=False,
    )


_OUT: Final[Any] = Field(default=None, exclude=True, repr=False)

_PARTICIPANT: Final = "belongs at the top of the request, beside room_config"
_AGENT: Final = "belongs in room_config.agents[0]"
_ROOM: Final = (
    "is not passed on: Usher's rooms have the defaults of your LiveKit server. Create the room "
    "yourself first (RoomService.CreateRoom), or set the default in LiveKit's configuration"
)
_EGRESS: Final = (
    "is not passed on. Start the recording through LiveKit's egress API, or create the room "
    "yourself first, with its egress (RoomService.CreateRoom)"
)
_RESTART_POLICY: Final = (
    "is not passed on: Usher itself replaces an agent that dies while a person is in the room. "
    "Leave it out; to end a session for good, DELETE its dispatch"
)
_JOB_ATTRIBUTES: Final = (
    "is not passed on: put what the agent needs into room_config.agents[0].metadata; a "
    "participant's attributes belong in participant_attributes"
)
_METADATA: Final = (
    "belongs in room_config.agents[0].metadata (for the agent) or in participant_metadata (of the "
    "participant)"
)
_TWO_NAMES: Final = (
    "is not known here: an agent's name belongs in room_config.agents[0].agent_name, a "
    "participant's in participant_name, a room's in room_name"
)


class _OfJob(Message):
    """Fields of an agent's job that no part of a request takes."""

    restart_policy: Annotated[None, Refused(_RESTART_POLICY, default="JRP_ON_FAILURE")] = _OUT
    attributes: Annotated[None, Refused(_JOB_ATTRIBUTES)] = _OUT


class _OfRoom(Message):
    """Fields of LiveKit's `RoomConfiguration` that no part of a request takes."""

    empty_timeout: Annotated[None, Refused(_ROOM)] = _OUT
    departure_timeout: Annotated[None, Refused(_ROOM)] = _OUT
    max_participants: Annotated[None, Refused(_ROOM)] = _OUT
    egress: Annotated[None, Refused(_EGRESS)] = _OUT
    min_playout_delay: Annotated[None, Refused(_ROOM)] = _OUT
    max_playout_delay: Annotated[None, Refused(_ROOM)] = _OUT
    sync_streams: Annotated[None, Refused(_ROOM)] = _OUT
    tags: Annotated[None, Refused(_ROOM)] = _OUT


class _AgentMetadata(Message):
    """The agent's metadata under another name."""

    agent_metadata: Annotated[None, Refused("belongs in room_config.agents[0].metadata")] = _OUT


class _Below(_AgentMetadata):
    """Fields that belong at the top of the request, not below `room_config`."""

    room: Annotated[None, Refused("belongs in room_name, at the top of the request")] = _OUT
    room_name: Annotated[None, Refused(_PARTICIPANT)] = _OUT
    participant_identity: Annotated[None, Refused(_PARTICIPANT)] = _OUT
    participant_name: Annotated[None, Refused(_PARTICIPANT)] = _OUT
    participant_metadata: Annotated[None, Refused(_PARTICIPANT)] = _OUT
    participant_attributes: Annotated[None, Refused(_PARTICIPANT)] = _OUT


class RefusedInAgent(_OfJob, _Below):
    """Fields that an entry of `room_config.agents` (`RoomAgentDispatch`) does not take."""

    name: Annotated[None, Refused(_TWO_NAMES)] = _OUT


class RefusedInRoomConfig(_OfJob, _OfRoom, _Below):
    """Fields that `room_config` (LiveKit's `RoomConfiguration`) does not take."""

    name: Annotated[None, Refused(_ROOM)] = _OUT  # of a preset in LiveKit's configuration
    metadata: Annotated[None, Refused(f"{_ROOM}. For the agent, metadata {_AGENT}.metadata")] = _OUT
    agent_name: Annotated[None, Refused(_AGENT)] = _OUT
    deployment: Annotated[None, Refused(_AGENT)] = _OUT


class RefusedInRequest(_OfJob, _OfRoom, _AgentMetadata):
    """Fields that the request itself (LiveKit's `TokenSourceRequest`) does not take."""

    agents: Annotated[None, Refused("belongs in room_config")] = _OUT
    agent_name: Annotated[None, Refused(f"{_AGENT}.agent_name")] = _OUT
    metadata: Annotated[None, Refused(_METADATA)] = _OUT
    deployment: Annotated[None, Refused(f"{_AGENT}.deployment")] = _OUT
    room: Annotated[None, Refused("belongs in room_name")] = _OUT  # CreateDispatch's name of it
    name: Annotated[None, Refused(_TWO_NAMES)] = _OUT
