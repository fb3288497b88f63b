"""How is a session asked for, looked at, sent again and cancelled?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from flask import Blueprint, Response, g, request
from kombu.exceptions import OperationalError
from livekit.api import RoomConfiguration
from pydantic import ValidationError

from dispatcher import cancelling, endings, ledger, listing, messages, tracing, waking
from dispatcher.clients import Client
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import Created, Once, Step
from dispatcher.models import (
    PENDING,
    REDISPATCH,
    REDISPATCH_REQUESTED,
    Dispatch,
    NewDispatch,
    State,
)
from dispatcher.quotas import Admission
from web import together
from web.auth import authenticate, permitted, reader
from web.hoped import Hoped
from web.idempotency import conflict, idempotency_key, once
from web.limits import check_depth
from web.problems import Problem, invalid_fields, unavailable
from web.promises import Promise
from web.reply import after_answer
from web.schemas import (
    Accepted,
    ListQuery,
    TokenRequest,
    dispatch_answer,
    page_answer,
    token_answer,
)
from web.services import Services, services
from web.tokens import delegated_agents, participant_token, unguessable

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


def _body() -> TokenRequest:
    raw = request.get_data()
    check_depth(raw)
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
        traceparent=tracing.current().traceparent,
    )


def _create(
    here: Services, client: Client, new: NewDispatch, asked: Once | None
) -> together.Question[Created]:
    """Have the record written, or the live one of that room found."""
    return together.ask(here.ledger, _creation(here, client, new, asked))


def _creation(
    here: Services, client: Client, new: NewDispatch, asked: Once | None
) -> Step[Created]:
    return ledger.create(
        new,
        due_in_s=here.common.wake_grace_s,
        detail={"by": "http"},
        limits=client.limits,
        paced=len(here.clients.clients) > 1,
        max_backlog=here.common.max_backlog,
        once=asked,
        hold_back=True,
    )


def _instead_of(
    here: Services, client: Client, new: NewDispatch, asked: Once | None, over: Created
) -> Created:
    """End the room's dispatch whose people have left, and have the record of another written.

    Its agent has been given other metadata: whoever asks with new one wants a new session.
    """
    dispatch = here.ledger.run(ledger.read(over.dispatch_id))
    if dispatch is not None:
        reason = "everybody has left, and the room was asked for again with other agent metadata"
        retention_s = here.common.retention_s
        here.ledger.run(endings.everybody_left(dispatch, retention_s=retention_s, reason=reason))
    return here.ledger.run(_creation(here, client, new, asked))


def _created(
    here: Services,
    client: Client,
    hoped: Accepted,
    new: NewDispatch,
    asked: Once | None,
    creating: together.Question[Created],
) -> tuple[Accepted, str]:
    """What has become of it, and for which participant where that is another one.

    Raises:
        Problem: 409, the request's `Idempotency-Key` was another one's.
        LimitReached: the client has used up what it may ask for.
        Overloaded: too many sessions of all clients are on their way.
        LedgerUnavailable: nobody knows.
    """
    created = creating.answer()
    if created.over:
        created = _instead_of(here, client, new, asked, created)
    elif creating.step.tell is not None:
        after_answer(partial(creating.step.tell, created))
    if created.conflict:
        raise conflict()
    if created.new:
        if created.wakes:
            here.wakes.send_later()
        here.promises.remember(new)
        return hoped, created.identity
    answered = replace(new, room_name=created.room_name or new.room_name)
    accepted = Accepted.of(answered, dispatch_id=created.dispatch_id, state=created.state)
    return accepted, created.identity


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
def create_dispatch() -> Response:
    """Answer with a participant token at once and have the agent dispatched."""
    here = services()
    client = authenticate(here.clients, publishable=True)
    key = idempotency_key()
    wanted = permitted(_body())
    identity = wanted.participant_identity or unguessable("user-")
    new = _promise(client, wanted)
    asked = None
    if key is not None:
        new, asked = here.delegations.recall(new, once(key, wanted, new, identity))
        identity = asked.identity
    creating = g.creating = _create(here, client, new, asked)
    hoped = Accepted.of(new, dispatch_id=new.dispatch_id, state=State.QUEUED)

    def settle() -> Response | None:
        agents = None
        try:
            accepted, given = _created(here, client, hoped, new, asked, creating)
        except LedgerUnavailable:
            accepted, promise = _delegate(here, client, new)
            if asked is not None:
                here.delegations.keep(promise.new, asked)
            given = identity
            agents = delegated_agents(promise.new, requested_at_ms=promise.requested_at_ms)
        given = given or identity
        _note(accepted)
        if (accepted, given, agents) == (hoped, identity, None):
            return None
        body = _answer(client, wanted, accepted, given, agents)
        return Response(body, mimetype="application/json")

    return Hoped(_answer(client, wanted, hoped, identity), settle, mimetype="application/json")


@blueprint.teardown_request
def _settled(_: BaseException | None) -> None:
    """Have Redis's reply read even where the request has failed before it was wanted."""
    if "creating" in g:
        g.creating.close()


def _answer(
    client: Client,
    wanted: TokenRequest,
    accepted: Accepted,
    identity: str,
    agents: RoomConfiguration | None = None,
) -> str:
    return token_answer(
        server_url=client.livekit.url,
        token=participant_token(client.livekit, wanted, accepted, identity=identity, agents=agents),
        identity=identity,
        accepted=accepted,
        base_url=_base_url(),
    )


def _note(of: Accepted | Dispatch) -> None:
    """Say in the request's trace which dispatch it is about, and point to that one's own trace."""
    here = tracing.current()
    if here is tracing.NO_SPAN:
        return
    here.set(
        {
            "usher.dispatch_id": of.dispatch_id,
            "usher.client_id": of.client_id,
            "usher.room": of.room_name,
            "usher.agent_name": of.agent_name,
            "usher.state": str(of.state),
        }
    )
    if tracing.trace_id(of.traceparent) != tracing.trace_id(here.traceparent):
        here.link(of.traceparent)


def _base_url() -> str:
    return f"{request.scheme}://{request.host}"  # host_url would parse it again


def _own(here: Services, client: Client, dispatch_id: str) -> Dispatch:
    """The record of one of the client's own dispatches.

    Raises:
        Problem: 404, it has no such dispatch.
    """
    dispatch = here.ledger.run(ledger.read(dispatch_id))
    if dispatch is None and here.promises.write(dispatch_id):
        # Redis is back this very moment. Were this a 404, nobody could cancel what is written next.
        dispatch = here.ledger.run(ledger.read(dispatch_id))
    if dispatch is None or dispatch.client_id != client.client_id:
        raise Problem(404, "Not Found", f"you have no dispatch {dispatch_id!r}")
    return dispatch


@blueprint.get("/dispatches")
def list_dispatches() -> dict[str, Any]:
    """The caller's own dispatches, newest first, a page at a time."""
    here = services()
    client = authenticate(here.clients)
    try:
        query = ListQuery.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid_fields(error) from None
    step = listing.page(client.client_id, state=query.state, limit=query.limit, after=query.cursor)
    return page_answer(here.ledger.run(step))


@blueprint.get("/dispatches/<dispatch_id>")
def show_dispatch(dispatch_id: str) -> dict[str, Any]:
    """The record of one of the caller's own dispatches."""
    here = services()
    client = reader(here.clients, dispatch_id)
    return dispatch_answer(_own(here, client, dispatch_id))


@blueprint.get("/dispatches/<dispatch_id>/events")
def follow_dispatch(dispatch_id: str) -> Response:
    """The record, and then what happens to it, as server-sent events."""
    here = services()
    client = reader(here.clients, dispatch_id)
    return here.streams.response(_own(here, client, dispatch_id))


@blueprint.post("/dispatches/<dispatch_id>/redispatch")
def redispatch(dispatch_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Start a new attempt for a dispatch that has ended, or whose agent may be gone.

    Whether a joined one's agent is there only LiveKit knows: a worker asks it, and the timeline
    tells what came of it.
    """
    here = services()
    client = authenticate(here.clients)
    dispatch = _own(here, client, dispatch_id)
    _note(dispatch)
    if dispatch.state in PENDING:
        raise Problem(
            409, "Conflict", f"it is {dispatch.state} already, and goes on by itself; look again"
        )
    if dispatch.state is State.JOINED:
        _ask_for_redispatch(here, client, dispatch)
    else:
        _send_again(here, client, dispatch)
    answer = dispatch_answer(_own(here, client, dispatch_id))
    return answer, 202, {"Location": f"{_base_url()}/api/v1/dispatches/{dispatch.dispatch_id}"}


def _admission(here: Services, client: Client) -> Admission:
    return Admission(
        limits=client.limits,
        paced=len(here.clients.clients) > 1,
        max_backlog=here.common.max_backlog,
    )


def _ask_for_redispatch(here: Services, client: Client, dispatch: Dispatch) -> None:
    step = ledger.advance(
        dispatch,
        REDISPATCH_REQUESTED,
        detail={"by": "http"},
        admission=_admission(here, client),
    )
    if not here.ledger.run(step).applied:
        raise Problem(409, "Conflict", "it has just changed; look again")
    try:
        waking.wake_redispatch(dispatch.dispatch_id, dispatch.room_name)
    except OperationalError:
        raise unavailable("no worker could be told; try again in a second") from None


def _send_again(here: Services, client: Client, dispatch: Dispatch) -> None:
    done = here.ledger.run(
        ledger.advance(
            dispatch,
            REDISPATCH,
            due_in_s=here.common.wake_grace_s,
            detail={"by": "http"},
            deadline_in_s=client.deadline_s,
            admission=_admission(here, client),
            wake=messages.dispatch(dispatch.dispatch_id, dispatch.room_name),
        )
    )
    if done.outcome == "occupied":
        raise Problem(409, "Conflict", f"its room is served by dispatch {done.job_id} now")
    if not done.moved:
        raise Problem(409, "Conflict", "it has just changed; look again")


@blueprint.delete("/dispatches/<dispatch_id>")
def cancel_dispatch(dispatch_id: str) -> dict[str, Any]:
    """End a dispatch at once; its agent leaves. One that has ended stays as it is."""
    here = services()
    client = authenticate(here.clients)
    dispatch = _own(here, client, dispatch_id)
    _note(dispatch)
    paced = len(here.clients.clients) > 1
    step = cancelling.cancel(dispatch, retention_s=here.common.retention_s, paced=paced)
    if here.ledger.run(step).moved:
        here.promises.forget(dispatch.dispatch_id)
    return dispatch_answer(_own(here, client, dispatch_id))
