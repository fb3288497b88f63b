"""The JSON API behind the dashboard's pages, for the operator's browser alone.

Every answer has an ETag: a page that asks again every two seconds mostly hears that nothing has
changed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from flask import Blueprint, Response, request

from dispatcher.domain.metrics import Window
from dispatcher.errors import UnreadableRecord
from dispatcher.explain.explanation import explain_parked, explain_unknown
from dispatcher.ledger import reports
from dispatcher.ledger.queries import Page
from dispatcher.ledger.statistics import NOT_OURS
from web.auth.operator import PATH, operator_credential, signed_in
from web.contract.problems import Problem
from web.contract.request_schemas import query
from web.dashboard import queries
from web.dashboard.serializers import (
    failure_answer,
    health_answer,
    page_answer,
    session_answer,
    states_answer,
    success_answer,
    window_answer,
)
from web.monitoring import health
from web.services import services

blueprint = Blueprint("dashboard_api", __name__, url_prefix=f"{PATH}/api")


@blueprint.before_request
def _operator_only() -> None:
    if not operator_credential():
        raise Problem(403, "set USHER_OPERATOR_AUTH to switch the dashboard on")
    if not signed_in():
        raise Problem(401, "sign in at /dashboard/login")


def _answer(body: Mapping[str, Any], status: int = 200) -> Response:
    # Without the time of the answer, which always changes.
    etag = sha256(json.dumps({**body, "at_ms": 0}).encode()).hexdigest()[:16]
    answer = Response(json.dumps(body), status=status, mimetype="application/json")
    answer.set_etag(etag)
    if status == 200:
        answer.make_conditional(request)
    return answer


@blueprint.get("/overview")
def overview() -> Response:
    """Return figures, health, and the newest failures."""
    here = services()
    wanted = query(queries.OverviewQuery)
    ids = wanted.client_ids
    # With all clients shown, answers to jobs that are no client's of ours count, too.
    counted = ids if wanted.client else (*ids, NOT_OURS)
    by_window = {each: queries.read_figures(here, each, counted) for each in Window}
    shown = by_window[wanted.window]
    standing = queries.read_health(here)
    missing = health.missing(here.clients, here.dispatcher, standing)
    failures = queries.newest_failures(here, ids)
    return _answer(
        {
            "at_ms": standing.at_ms,
            "clients": [client.client_id for client in here.clients.clients],
            "window": wanted.window,
            "success": {each: success_answer(by_window[each].clients) for each in Window},
            "states": states_answer(by_window[Window.MINUTES].clients),
            **window_answer(shown),
            "health": health_answer(standing, missing, ids),
            "newest_failures": [failure_answer(each, here.timings) for each in failures],
        }
    )


@blueprint.get("/sessions")
def sessions() -> Response:
    """List the sessions, the newest first."""
    here = services()
    wanted = query(queries.SessionsQuery)
    now_ms = int(time.time() * 1000)
    text = wanted.text.strip()
    # An id finds its session, regardless of the other filters and of its age.
    exact = None
    with contextlib.suppress(UnreadableRecord):
        exact = queries.read_dispatch(here, text) if text.startswith("dsp_") else None
    page = Page(dispatches=(exact,), next=None) if exact else queries.find_kept(here, wanted)
    clients = [client.client_id for client in here.clients.clients]
    return _answer({**page_answer(page, at_ms=now_ms), "clients": clients})


@blueprint.get("/sessions/<dispatch_id>")
def session(dispatch_id: str) -> Response:
    """Return one session with its explanation in words; a 404 has an explanation, too."""
    here = services()
    parked = here.snapshots.get("parked", 1.0, lambda: here.ledger.run(reports.parked()))
    unreadable = parked.get(dispatch_id)
    dispatch = None
    if unreadable is None:
        try:
            dispatch = queries.read_dispatch(here, dispatch_id)
        except UnreadableRecord as error:  # the sweeper has not met it yet
            unreadable = str(error)
    if dispatch is not None:
        flower_url = here.settings.flower_url
        return _answer(session_answer(dispatch, here.timings, flower_url=flower_url))
    if unreadable is None:
        explanation = explain_unknown(dispatch_id, here.timings)
    else:
        explanation = explain_parked(dispatch_id, unreadable)
    return _answer({"explanation": asdict(explanation)}, 404)
