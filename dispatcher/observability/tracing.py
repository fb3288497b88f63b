"""Traces of a dispatch, from the HTTP request to its agent; spans that do nothing without tracing.

`start` sets OpenTelemetry up (`observability/otel.py`) where the standard `OTEL_` variables ask for
traces. The trace context travels in the dispatch's record and in its LiveKit attributes, never in
a Celery message, which may be lost. A span holds ids, states and reasons; no metadata, token, key
or text of an error.

The current span is this module's own: spans that libraries create are parts of it only where
`for_others` says so.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span as Span
from opentelemetry.trace import SpanContext, Tracer
from opentelemetry.trace import SpanKind as SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

Value = str | int | float | bool

NO_SPAN: Final[Span] = trace.INVALID_SPAN
_HEADER: Final = TraceContextTextMapPropagator()


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
_guests: TracerProvider | None = None
_starting = threading.Lock()
# Spans in which something has happened: an event, a part, a failure.
_busy: WeakSet[Span] = WeakSet()


def start(service: str) -> None:
    """Trace in this process from now on, if the environment asks for it; call this after any fork.

    A wrong setting is logged as an error, and the process goes on without traces.
    """
    global _tracer, _guests
    with _starting:
        if _tracer is not None or not configured():
            return
        try:
            from dispatcher.observability import otel

            _tracer, _guests = otel.set_up(service)
        except Exception as error:
            logger.error("no traces: %s; set the OTEL_ variables right, see docs/tracing.md", error)


def on() -> bool:
    """Return whether this process traces."""
    return _tracer is not None


def guests() -> TracerProvider | None:
    """Return the provider for libraries' spans, which exports only those that are parts of ours."""
    return _guests


def current() -> Span:
    """Return the current span."""
    return _current.get()


def traceparent(span: Span) -> str:
    """Return a span's W3C traceparent; empty without tracing."""
    carrier: dict[str, str] = {}
    if span is not NO_SPAN:
        _HEADER.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")


def context(traceparent: str) -> SpanContext:
    """Return the span context that a W3C traceparent names; an invalid one if it names none."""
    found = _HEADER.extract({"traceparent": traceparent}, Context())
    return trace.get_current_span(found).get_span_context()


def begin(
    name: str,
    *,
    parent: str = "",
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, Value] | None = None,
    root: bool = False,
) -> Span:
    """Begin a span that lasts until `end`.

    It is a part of `parent`, a W3C traceparent, or without one of the current span. Without any
    parent a `root` begins a trace, and any other span is none.
    """
    if _tracer is None:
        return NO_SPAN
    above = trace.NonRecordingSpan(context(parent)) if parent else current()
    if not (root or above.get_span_context().is_valid):
        return NO_SPAN
    _busy.add(above)
    # In a context of its own, so that a root is not below another instrumentation's current span.
    below = trace.set_span_in_context(above, Context())
    return _tracer.start_span(name, context=below, kind=kind, attributes=attributes)


def end(span: Span) -> None:
    """End the span. A second call does nothing."""
    if span.is_recording():
        span.end()


def fail(span: Span, error_type: str) -> None:
    """Mark the span as failed, unless it has ended."""
    if span.is_recording():
        _busy.add(span)
        span.set_attribute("error.type", error_type)
        span.set_status(trace.StatusCode.ERROR)


@contextmanager
def inside(span: Span) -> Iterator[Span]:
    """Make `span` the current one in the block; the block's end does not end it."""
    token = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(token)


@contextmanager
def span(
    name: str,
    *,
    parent: str = "",
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, Value] | None = None,
    lazy: bool = False,
) -> Iterator[Span]:
    """Make a span for the block, as `begin` does; an error that leaves the block fails the span.

    A `lazy` one is exported only if something happens in it.
    """
    begun = begin(name, parent=parent, kind=kind, attributes=attributes)
    with inside(begun):
        try:
            yield begun
        except Exception as error:
            fail(begun, type(error).__name__)
            raise
        finally:
            if not lazy or begun in _busy:
                end(begun)


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
    same = trace_id(traceparent(here)) == trace_id(parent)
    if same and here.is_recording():
        _busy.add(here)
        here.add_event(name, attributes)
        return
    mark = begin(name, parent=parent, attributes={**attributes, **(about or {})})
    if not same:
        mark.add_link(here.get_span_context())
    mark.end()


def for_others(span: Span) -> AbstractContextManager[object]:
    """Make spans that libraries create in the block parts of `span`."""
    if span is NO_SPAN:
        return nullcontext()
    # The span's owner decides what an error of the block means for it.
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)
