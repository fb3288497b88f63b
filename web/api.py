"""How is a session asked for, and how is it looked at?"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request
from pydantic import ValidationError

from dispatcher import ledger
from dispatcher.clients import Client
from dispatcher.errors import LedgerUnavailable
from dispatcher.models import NewDispatch, State
from web.auth import authenticate, reader
from web.problems import Problem, invalid_fields
from web.promises import Promise
from web.schemas import Accepted, TokenRequest, dispatch_answer, token_answer
from web.services import Services, services
from web.tokens import delegated_agents, participant_token, unguessable

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


def _body() -> TokenRequest:
    raw = request.get_data()
    try:
        return TokenRequest.model_validate_json(raw or b"{}")
    except ValidationError as error:
        if any(item["type"] == "json_invalid" for item in error.errors()):
            raise Problem(400, "Bad Request", "the body is not valid JSON") from None
        raise invalid_fields(error) from None


def _agent_name(client: Client, wanted: TokenRequest) -> str:
    agent_name = wanted.agent.agent_name or client.default_agent_name
    if not client.may_use(agent_name):
        raise Problem(
            403,
            "Forbidden",
            f"agent {agent_name!r} is not one that you may use; yours: "
            + ", ".join(client.agent_names),
        )
    return agent_name


def _promise(client: Client, wanted: TokenRequest) -> NewDispatch:
    return NewDispatch(
        dispatch_id=unguessable("dsp_"),
        client_id=client.client_id,
        room_name=wanted.room_name or unguessable("room-"),
        agent_name=_agent_name(client, wanted),
        container=client.container,
        agent_metadata=wanted.agent.metadata,
        deadline_ms=int(client.deadline_s * 1000),
    )


def _record(here: Services, new: NewDispatch) -> Accepted:
    """Write the record and have the dispatcher woken, or find the live one of that room."""
    created = here.ledger.run(
        ledger.create(
            new,
            due_in_s=here.common.wake_grace_s,
            detail={"by": "http"},
            max_backlog=here.common.max_backlog,
        )
    )
    accepted = Accepted.of(new, dispatch_id=created.dispatch_id, state=created.state)
    if created.new:
        here.promises.remember(new)
        here.publisher.put(accepted)
    return accepted


def _delegate(here: Services, client: Client, new: NewDispatch) -> tuple[Accepted, Promise]:
    """Without Redis: have LiveKit itself dispatch when the person joins.

    Raises:
        LedgerUnavailable: the client does not want that, or no more can be remembered.
    """
    if not client.delegates:
        raise LedgerUnavailable("Redis does not answer, and this client delegates nothing")
    promise = here.promises.delegate(new)
    return Accepted.of(
        promise.new, dispatch_id=promise.new.dispatch_id, state=State.DELEGATED
    ), promise


@blueprint.post("/dispatches")
def create_dispatch() -> dict[str, str]:
    """Answer with a participant token at once and have the agent dispatched."""
    here = services()
    with here.publisher.answering():
        client = authenticate(here.clients)
        wanted = _body()
        identity = wanted.participant_identity or unguessable("user-")
        new = _promise(client, wanted)
        agents = None
        try:
            accepted = _record(here, new)
        except LedgerUnavailable:
            accepted, promise = _delegate(here, client, new)
            agents = delegated_agents(promise.new, requested_at_ms=promise.requested_at_ms)
        return token_answer(
            server_url=client.livekit.url,
            token=participant_token(
                client.livekit, wanted, accepted, identity=identity, agents=agents
            ),
            identity=identity,
            accepted=accepted,
            base_url=request.host_url.rstrip("/"),
        )


@blueprint.get("/dispatches/<dispatch_id>")
def show_dispatch(dispatch_id: str) -> dict[str, Any]:
    """The record of one of the caller's own dispatches."""
    here = services()
    client = reader(here.clients, dispatch_id)
    dispatch = here.ledger.run(ledger.read(dispatch_id))
    if dispatch is None or dispatch.client_id != client.client_id:
        raise Problem(404, "Not Found", f"you have no dispatch {dispatch_id!r}")
    return dispatch_answer(dispatch)
