"""The views at `/api/v1/dispatches`: create, list, show, follow, redispatch and cancel."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

from flask import Blueprint, Response, request
from pydantic import ValidationError
from werkzeug.sansio.utils import get_current_url

from dispatcher.clients.models import Client
from dispatcher.domain.models import PENDING, TERMINAL, Dispatch, NewDispatch, State
from dispatcher.errors import LedgerUnavailable, LimitReached, TooLate, UnreadableRecord
from dispatcher.ledger import dispatches, endings, queries
from dispatcher.ledger.dispatches import Created, Once
from dispatcher.observability import tracing
from web.api.delegation import delegate
from web.api.redispatch import admission, change, start_again
from web.auth.api_keys import Caller, authenticate, caller, permitted, reader
from web.contract.answer_schemas import dispatch_json, page_answer, token_answer
from web.contract.participant_tokens import participant_token, unguessable
from web.contract.problems import Problem, invalid_fields, too_many
from web.contract.request_schemas import ListQuery, TokenRequest, query
from web.server import slow_callers
from web.services import Services, services
from web.state.abuse_limits import check_depth, check_large, refusals_counted
from web.state.idempotency import conflict, idempotency_key, once

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.errorhandler(LimitReached)
def _limit_reached(error: LimitReached) -> Response:
    """Answer 429; this process refuses the next requests of a client that has used them up."""
    if who := caller():
        services().spent_requests.note(who.client.client_id, public=who.public, refused=error)
    return too_many(str(error), retry_after_s=max(1, math.ceil(error.retry_after_s))).response()


def _body(here: Services, who: Caller) -> TokenRequest:
    raw = slow_callers.whole_body()
    check_large(here.ledger, who.client.client_id, who.limits, raw)
    check_depth(raw)
    try:
        return TokenRequest.model_validate_json(raw or b"{}")
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise Problem(400, "the body is not valid JSON") from None
        raise invalid_fields(error) from None


def _new_dispatch(client: Client, wanted: TokenRequest) -> NewDispatch:
    agent_name = wanted.agent.agent_name or client.default_agent_name
    if not client.may_use(agent_name):
        yours = ", ".join(client.agent_names)
        raise Problem(403, f"agent {agent_name!r} is not one that you may use; yours: {yours}")
    return NewDispatch(
        dispatch_id=unguessable("dsp_"),
        client_id=client.client_id,
        room_name=wanted.room_name or unguessable("room-"),
        agent_name=agent_name,
        container=client.container,
        agent_metadata=wanted.agent.metadata,
        deployment=wanted.agent.deployment,
        deadline_ms=int(client.deadline_s * 1000),
        traceparent=tracing.traceparent(tracing.current()),
    )


def _create(here: Services, who: Caller, new: NewDispatch, asked: Once | None) -> Created:
    """Create `new`, or find its room's live dispatch.

    Raises:
        LedgerUnavailable: Redis did not answer in time.
        Problem, LimitReached, Overloaded: it is refused.
    """

    def create() -> Created:
        step = dispatches.create(
            new,
            due_in_s=here.common.wake_grace_s,
            detail={"by": "http"},
            admission=admission(here, who.limits),
            once=asked,
            not_after_ms=here.ledger.not_after_ms(),
        )
        return here.ledger.run(step)

    try:
        created = create()
    except TooLate:
        # The caller still waits: this process was busy, or had a wrong offset of Redis's clock.
        here.ledger.look_at_clock()
        created = create()
    if created.over:
        _end_left(here, created.dispatch_id)
        created = create()
    if created.conflict:
        raise conflict()
    if created.new:
        here.promises.remember(new)
    return created


def _end_left(here: Services, dispatch_id: str) -> None:
    """End a dispatch whose people have left: a caller with new metadata wants a new session."""
    dispatch = here.ledger.run(dispatches.read(dispatch_id))
    if dispatch is not None:
        reason = "everybody has left, and the room was asked for again with other agent metadata"
        retention_s = here.common.retention_s
        here.ledger.run(endings.everybody_left(dispatch, retention_s=retention_s, reason=reason))


@blueprint.post("/dispatches")
def create_dispatch() -> Response:
    """Answer with a participant token at once and have the agent dispatched."""
    here = services()
    who = authenticate(publishable=True)
    client, public = who.client, who.public
    here.spent_requests.check(client.client_id, public=public)
    with refusals_counted(here.ledger, client.client_id, who.limits):
        key = idempotency_key(public=public)
        wanted = permitted(who, _body(here, who))
        new = _new_dispatch(client, wanted)
    identity = wanted.participant_identity or unguessable("user-")
    asked = None
    if key is not None:
        asked = once(key, wanted, new, identity, public=public)
        new, asked = here.delegations.recall(new, asked)
        identity = asked.identity or identity
    agents = None
    try:
        created = _create(here, who, new, asked)
        state, identity = created.state, created.identity or identity
        room_name = created.room_name or new.room_name
        dispatch = replace(new, dispatch_id=created.dispatch_id, room_name=room_name)
    except LedgerUnavailable as error:
        state = State.DELEGATED
        dispatch, agents = delegate(here.promises, client, new, public=public, because=error)
        if asked is not None:
            here.delegations.keep(dispatch, asked)
    _describe_span(dispatch, state)
    token = participant_token(
        client.livekit,
        wanted,
        dispatch_id=dispatch.dispatch_id,
        room_name=dispatch.room_name,
        identity=identity,
        agents=agents,
    )
    body = token_answer(
        dispatch,
        state,
        server_url=client.livekit.url,
        token=token,
        identity=identity,
        base_url=_base_url(),
    )
    return _json(body)


def _json(body: str | bytes, *, status: int = 200) -> Response:
    return Response(body, status, mimetype="application/json")


def _describe_span(dispatch: NewDispatch | Dispatch, state: State) -> None:
    """Put the dispatch's attributes into the request's span, and a link to the dispatch's trace."""
    span = tracing.current()
    if span is tracing.NO_SPAN:
        return
    span.set_attributes(
        {
            "usher.dispatch_id": dispatch.dispatch_id,
            "usher.client_id": dispatch.client_id,
            "usher.room": dispatch.room_name,
            "usher.agent_name": dispatch.agent_name,
            "usher.state": str(state),
        }
    )
    of_dispatch = tracing.context(dispatch.traceparent)
    if of_dispatch.trace_id != span.get_span_context().trace_id:
        span.add_link(of_dispatch)


def _base_url() -> str:
    return _without_slash(request.scheme, request.host, request.root_path)


@lru_cache(maxsize=100)
def _without_slash(scheme: str, host: str, root_path: str) -> str:
    """Return the root URL; werkzeug takes 30 us to make it for each request."""
    return get_current_url(scheme, host, root_path).rstrip("/")


def _own(here: Services, client: Client, dispatch_id: str, *, history: bool = True) -> Dispatch:
    """Return the record of one of the client's own dispatches.

    Raises:
        Problem: 404, the client has no such dispatch.
        UnreadableRecord: the record is the client's, and cannot be read.
    """
    try:
        dispatch = here.ledger.run(dispatches.read(dispatch_id, history=history))
    except UnreadableRecord as error:
        if error.client_id == client.client_id:
            raise
        dispatch = None
    if dispatch is None and here.promises.write(dispatch_id):
        # Redis has just come back. With a 404 the caller could not cancel what is written next.
        dispatch = here.ledger.run(dispatches.read(dispatch_id, history=history))
    if dispatch is None or dispatch.client_id != client.client_id:
        raise Problem(404, f"you have no dispatch {dispatch_id!r}")
    return dispatch


@blueprint.get("/dispatches")
def list_dispatches() -> dict[str, Any]:
    """List the caller's own dispatches, newest first, a page at a time."""
    here = services()
    client = authenticate().client
    asked = query(ListQuery)
    step = queries.page(client.client_id, state=asked.state, limit=asked.limit, after=asked.cursor)
    return page_answer(here.ledger.run(step))


@blueprint.get("/dispatches/<dispatch_id>")
def show_dispatch(dispatch_id: str) -> Response:
    """Return the record of one of the caller's own dispatches."""
    here = services()
    client = reader(dispatch_id)
    return _json(dispatch_json(_own(here, client, dispatch_id)))


@blueprint.get("/dispatches/<dispatch_id>/events")
def follow_dispatch(dispatch_id: str) -> Response:
    """Stream the record, and then its timeline, as server-sent events."""
    here = services()
    client = reader(dispatch_id)
    shared = len(here.clients.clients) > 1
    return here.streams.response(_own(here, client, dispatch_id), shared=shared)


@blueprint.post("/dispatches/<dispatch_id>/redispatch")
def redispatch(dispatch_id: str) -> Response:
    """Start a new attempt for a dispatch that has ended, or that may have lost its agent.

    Only LiveKit knows whether the agent of a joined dispatch is there: a worker asks it, and the
    timeline has the result.
    """
    here = services()
    client = authenticate().client
    here.spent_requests.check(client.client_id, public=False)
    dispatch = _own(here, client, dispatch_id, history=False)
    _describe_span(dispatch, dispatch.state)
    if dispatch.state in PENDING:
        raise Problem(409, f"it is {dispatch.state} already, and goes on by itself; look again")
    start_again(here, client, dispatch)
    answer = _json(dispatch_json(_own(here, client, dispatch_id)), status=202)
    answer.location = f"{_base_url()}/api/v1/dispatches/{dispatch.dispatch_id}"
    return answer


@blueprint.delete("/dispatches/<dispatch_id>")
def cancel_dispatch(dispatch_id: str) -> Response:
    """Cancel a dispatch at once; its agent leaves. A dispatch that has ended stays as it is."""
    here = services()
    client = authenticate().client
    dispatch = _own(here, client, dispatch_id, history=False)
    _describe_span(dispatch, dispatch.state)
    if dispatch.state not in TERMINAL:
        step = endings.cancel(
            dispatch,
            retention_s=here.common.retention_s,
            within_s=here.ledger.in_time_s,
            paced=len(here.clients.clients) > 1,
        )
        if change(here, step).moved:
            here.promises.forget(dispatch.dispatch_id)
    return _json(dispatch_json(_own(here, client, dispatch_id)))
