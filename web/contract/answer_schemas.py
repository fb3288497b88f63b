"""Pydantic models of the API's answers, and the functions that fill them from a dispatch.

`/openapi.json` has their schemas; a field's description here is its documentation there.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field
from pydantic_core import to_json

from dispatcher.domain.models import Dispatch, NewDispatch, State, TimelineEvent
from dispatcher.ledger.queries import Page

# Nothing is null to a caller.
Filled = Annotated[str | None, BeforeValidator(lambda text: text or None)]
Milliseconds = Annotated[int, Field(description="Milliseconds since 1970, by Redis's clock.")]
DispatchId = Annotated[str, Field(examples=["dsp_BWA-BKOFuK9gGdfLrxlpdg"])]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class TokenAnswer(_Answer):
    """LiveKit's `TokenSourceResponse`, and where to follow the dispatch."""

    server_url: Annotated[str, Field(examples=["wss://livekit.example.com"])]
    participant_token: Annotated[
        str,
        Field(
            description="A LiveKit token: joins this one room for ten minutes, and reads this one "
            "dispatch's record and events."
        ),
    ]
    room_name: str
    participant_identity: str
    dispatch_id: DispatchId
    status: State
    state: Annotated[State, Field(description="The same as `status`, as the record calls it.")]
    status_url: str
    events_url: str


class AttemptAnswer(_Answer):
    """One generation of a dispatch, and what came of it."""

    generation: int
    livekit_dispatch_id: Filled
    tries: Annotated[int, Field(description="How often LiveKit was asked.")]
    errors: list[str]
    outcome: Filled
    reason: Filled


class EventAnswer(_Answer):
    """Something that happened to a dispatch."""

    at_ms: Milliseconds
    event: str
    generation: int
    detail: dict[str, str]


class DispatchSummary(_Answer):
    """A dispatch as it is listed."""

    dispatch_id: DispatchId
    state: State
    room_name: str
    agent_name: str
    deployment: Annotated[Filled, Field(description="Of the agent; null: it was asked for none.")]
    container: Annotated[
        Filled, Field(description="Where its agent runs, or has to; null: anywhere.")
    ]
    generation: Annotated[int, Field(description="Raised with every new attempt.")]
    created_at_ms: Milliseconds
    deadline_at_ms: Milliseconds
    agent_identity: Filled
    joined_at_ms: int | None
    time_to_join_ms: int | None
    failure_reason: Filled
    failure_message: Filled

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def status(self) -> State:
        """The same as `state`, as the answer to the request calls it."""
        return self.state


class DispatchRecord(DispatchSummary):
    """A dispatch with its attempts (the last 50) and its timeline (the last 200 events)."""

    attempts: list[AttemptAnswer]
    timeline: list[EventAnswer]


class DispatchPage(_Answer):
    """Some dispatches of the caller's, newest first."""

    dispatches: list[DispatchSummary]
    next_cursor: Annotated[
        str | None,
        Field(
            description="Where to go on; null: this is the last page. A page can be short, or "
            "empty, and have a next one: 1,000 records are looked at for a page."
        ),
    ]


class ServerSentEvent(BaseModel):
    """One event of the stream."""

    id: Annotated[str, Field(description="How many events the timeline has up to this one.")]
    event: Literal["snapshot", "timeline", "end"]
    data: Annotated[
        str,
        Field(
            description="JSON: a DispatchRecord (`snapshot`, `end`) or a StreamEvent (`timeline`).",
            json_schema_extra={"contentMediaType": "application/json"},
        ),
    ]


class StreamEvent(EventAnswer):
    """Data of a `timeline` event of the stream."""

    state: Annotated[State, Field(description="Where the dispatch stands when this is sent.")]

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def status(self) -> State:
        """The same as `state`."""
        return self.state


class FieldError(BaseModel):
    """What is wrong with one field."""

    field: Annotated[str, Field(examples=["room_config.agents.0.metadata"])]
    message: str


class ProblemAnswer(BaseModel):
    """RFC 9457 problem details: the body of every error, `application/problem+json`."""

    type: Annotated[str, Field(examples=["about:blank"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="What happened, and what to do about it.")]
    errors: Annotated[
        list[FieldError], Field(description="With 422 only: the first 20 wrong fields.")
    ] = []


class Health(BaseModel):
    """This process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """What a session needs, and which part of it has not reported itself lately."""

    status: Literal["ready", "degraded", "unavailable"]
    not_ready: list[str]
    parked: Annotated[
        list[str],
        Field(
            description="Ids of records that nobody can read, if there are any; with several "
            "clients for the operator only."
        ),
    ] = []
    agents_without_server: Annotated[
        list[str],
        Field(description="Agents that may be asked for and have no agent server online, if any."),
    ] = []
    redis: Annotated[
        str, Field(description="What Redis says when it refuses to work, and what to do about it.")
    ] = ""


def token_answer(
    dispatch: NewDispatch,
    state: State,
    *,
    server_url: str,
    token: str,
    identity: str,
    base_url: str,
) -> bytes:
    """Make the body of the 200, a `TokenAnswer`."""
    status_url = f"{base_url}/api/v1/dispatches/{dispatch.dispatch_id}"
    return to_json(
        {
            "server_url": server_url,
            "participant_token": token,
            "room_name": dispatch.room_name,
            "participant_identity": identity,
            "dispatch_id": dispatch.dispatch_id,
            "status": state,
            "state": state,
            "status_url": status_url,
            "events_url": f"{status_url}/events",
        }
    )


def _shown(dispatch: Dispatch) -> Dispatch:
    return replace(dispatch, container=dispatch.agent_container or dispatch.container)


def dispatch_json(dispatch: Dispatch) -> str:
    """Make the body of `GET /api/v1/dispatches/{id}`: the record, without the agent's metadata."""
    return DispatchRecord.model_validate(_shown(dispatch)).model_dump_json()


def dispatch_answer(dispatch: Dispatch) -> dict[str, Any]:
    """Show a dispatch as `dispatch_json` does, for another answer that it is a part of."""
    return DispatchRecord.model_validate(_shown(dispatch)).model_dump(mode="json")


def dispatch_summary(dispatch: Dispatch) -> dict[str, Any]:
    """Show a dispatch as it is listed."""
    return DispatchSummary.model_validate(_shown(dispatch)).model_dump(mode="json")


def page_answer(page: Page) -> dict[str, Any]:
    """Make the body of `GET /api/v1/dispatches`."""
    return DispatchPage(
        dispatches=[DispatchSummary.model_validate(_shown(each)) for each in page.dispatches],
        next_cursor=str(page.next) if page.next else None,
    ).model_dump(mode="json")


def event_answer(event: TimelineEvent, state: State) -> dict[str, Any]:
    """Make the data of one timeline event of the stream."""
    return StreamEvent(**asdict(event), state=state).model_dump(mode="json")
