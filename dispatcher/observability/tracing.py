"""Traces of a dispatch, from the HTTP request to its agent; a no-op without tracing.

`start` loads OpenTelemetry (`observability/otel.py`) where the standard `OTEL_` variables ask for
traces. The trace context travels in the dispatch's record and in its LiveKit attributes, never in
a Celery message, which may be lost. A span holds ids, states and reasons; no metadata, token, key
or text of an error.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Unpack

from dispatcher.observability.spans import NO_SPAN as NO_SPAN
from dispatcher.observability.spans import Options
from dispatcher.observability.spans import Span as Span
from dispatcher.observability.spans import Value as Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from dispatcher.observability.otel import Tracer

logger = logging.getLogger(__name__)


def configured() -> bool:
    """Return whether the `OTEL_` variables ask for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def trace_id(traceparent: str) -> str:
    """Return the trace id, for a log line; empty without a trace."""
    return traceparent[3:35]


_current: ContextVar[Span] = ContextVar("usher_span", default=NO_SPAN)
_tracer: Tracer | None = None
_starting = threading.Lock()


def start(service: str) -> None:
    """Trace in this process from now on, if the environment asks for it; call this after any fork.

    A wrong setting is logged as an error, and the process goes on without traces.
    """
    global _tracer
    with _starting:
        if _tracer is not None or not configured():
            return
        try:
            from dispatcher.observability.otel import Tracer

            _tracer = Tracer(service)
        except Exception as error:
            logger.error("no traces: %s; set the OTEL_ variables right, see docs/tracing.md", error)


def on() -> bool:
    """Return whether this process traces."""
    return _tracer is not None


def guests() -> TracerProvider | None:
    """Return the provider for libraries' spans, which exports only those that are parts of ours."""
    return None if _tracer is None else _tracer.guests


def current() -> Span:
    """Return the current span."""
    return _current.get()


def begin(name: str, **options: Unpack[Options]) -> Span:
    """Begin a span that lasts until its `end()`."""
    return NO_SPAN if _tracer is None else _tracer.begin(name, above=current(), **options)


@contextmanager
def inside(span: Span) -> Iterator[Span]:
    """Make `span` the current one in the block; the block's end does not end it."""
    token = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(token)


@contextmanager
def span(name: str, **options: Unpack[Options]) -> Iterator[Span]:
    """Make a span for the block; an error that leaves the block marks the span as failed."""
    begun = begin(name, **options)
    with inside(begun):
        try:
            yield begun
        except Exception as error:
            begun.failed(type(error).__name__)
            raise
        finally:
            begun.end()


def happened(
    name: str,
    attributes: Mapping[str, Value],
    *,
    parent: str,
    about: Mapping[str, Value] | None = None,
) -> None:
    """Add an event about the dispatch whose trace is `parent` to the current span.

    Where the current span is another trace's, or there is none, the event becomes a span of no
    length with the attributes `about`.
    """
    if _tracer is None or not parent:
        return
    here = current()
    same = trace_id(here.traceparent) == trace_id(parent)
    if same and here.event(name, attributes):
        return
    mark = begin(name, parent=parent, attributes={**attributes, **(about or {})})
    if here.traceparent and not same:
        mark.link(here.traceparent)
    mark.end()


def for_others(span: Span) -> AbstractContextManager[object]:
    """Make spans that libraries create in the block parts of `span`."""
    return span.for_others()
