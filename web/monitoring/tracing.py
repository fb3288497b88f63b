"""Spans of the requests that create, redispatch or cancel a dispatch: a trace begins there.

A caller's own trace (W3C `traceparent`) is continued.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from flask import Blueprint, Response, g, request

from dispatcher.observability import tracing

blueprint = Blueprint("tracing", __name__)

_TRACED: Final = frozenset({"api.create_dispatch", "api.redispatch", "api.cancel_dispatch"})


@blueprint.before_app_request
def _begin() -> None:
    if request.endpoint not in _TRACED or request.method == "OPTIONS":
        return
    route = str(request.url_rule)
    span = tracing.begin(
        f"{request.method} {route}",
        parent=request.headers.get("traceparent", ""),
        kind=tracing.SpanKind.SERVER,
        attributes={
            "http.request.method": request.method,
            "http.route": route,
            "url.path": request.path,
            "url.scheme": request.scheme,
        },
        root=True,
    )
    within: AbstractContextManager[tracing.Span] = tracing.inside(span)
    within.__enter__()
    g.traced = span, within


@blueprint.after_app_request
def _note(response: Response) -> Response:
    if "traced" in g:
        span, _ = g.traced
        span.set_attribute("http.response.status_code", response.status_code)
        if response.status_code >= 500:
            tracing.fail(span, str(response.status_code))
    return response


@blueprint.teardown_app_request
def _end(error: BaseException | None) -> None:
    if "traced" in g:
        span, within = g.pop("traced")
        within.__exit__(None, None, None)
        if error is not None:
            tracing.fail(span, type(error).__name__)
        tracing.end(span)
