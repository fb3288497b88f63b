"""OpenTelemetry behind `tracing`: its spans, and the providers that its environment configures.

Only `tracing.start` imports this module, so a process without traces loads nothing of
OpenTelemetry. OpenTelemetry itself reads sampler, limits, batches, endpoints, headers and
certificates from the `OTEL_` variables. This module replaces the rest of its set-up, which would
choose one global provider for every library, list all installed packages, and wait half a minute
at the end.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from importlib import import_module
from importlib.metadata import entry_points
from multiprocessing.util import Finalize
from typing import Final, Unpack

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dispatcher.observability.spans import NO_SPAN, Options, Span, Value

logger = logging.getLogger(__name__)

# At its end a process exports its last spans; with a receiver that hangs, for no longer than this.
STOP_S: Final = 1.0

_OTLP: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
# These loggers report every failed export; `_Watched` reports the first.
_CHATTY: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
_exporting: ContextVar[bool] = ContextVar("usher_exporting", default=False)


class LiveSpan(Span):
    """A span backed by OpenTelemetry. A `lazy` one is dropped if nothing happens in it."""

    def __init__(self, span: trace.Span, *, parent: Span, lazy: bool) -> None:
        self.span = span
        self._parent = parent
        self._forget = lazy
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        )

    def keep(self) -> None:
        """Have this span and its parents exported: something has happened in it."""
        self._forget = False
        if isinstance(self._parent, LiveSpan):
            self._parent.keep()

    def set(self, attributes: Mapping[str, Value]) -> None:
        if self.span.is_recording():
            self.span.set_attributes(attributes)

    def event(self, name: str, attributes: Mapping[str, Value]) -> bool:
        if not self.span.is_recording():
            return False
        self.keep()
        self.span.add_event(name, attributes)
        return True

    def link(self, traceparent: str) -> None:
        other = _remote(traceparent)
        if other is not None and self.span.is_recording():
            self.span.add_link(trace.get_current_span(other).get_span_context())

    def failed(self, error_type: str) -> None:
        if self.span.is_recording():
            self.keep()
            self.span.set_attribute("error.type", error_type)
            self.span.set_status(trace.Status(trace.StatusCode.ERROR))

    def end(self) -> None:
        if self.span.is_recording() and not self._forget:
            self.span.end()

    def for_others(self) -> AbstractContextManager[object]:
        # The span's owner decides what an error of the block means for it.
        return trace.use_span(self.span, record_exception=False, set_status_on_exception=False)


class Tracer:
    """Usher's tracer, and `guests`, the provider that exports libraries' spans as parts of ours."""

    def __init__(self, service: str) -> None:
        """Set up the exporters that the environment names.

        Raises:
            ValueError: a variable names an exporter or a protocol that there is not.
        """
        resource = _resource(service)
        processors = [BatchSpanProcessor(_Watched(exporter)) for exporter in _exporters()]
        # `_stop_at_the_end` shuts it down: a provider by itself waits half a minute for a receiver.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.guests = TracerProvider(
            resource=resource, sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False
        )
        for processor in processors:
            provider.add_span_processor(processor)
            self.guests.add_span_processor(processor)
        for name in _CHATTY:
            logging.getLogger(name).addFilter(lambda _: not _exporting.get())
        self._tracer = provider.get_tracer("usher")
        _stop_at_the_end(provider)

    def begin(self, name: str, *, above: Span, **options: Unpack[Options]) -> Span:
        """Begin a span below the parent that the options name, or else below `above`."""
        parent = options.get("parent", "")
        above = NO_SPAN if parent else above
        context = _remote(parent)
        if context is None and isinstance(above, LiveSpan):
            above.keep()
            context = trace.set_span_in_context(above.span)
        if context is None and not options.get("root"):
            return NO_SPAN
        # An empty context, so that a root is not below another instrumentation's current span.
        span = self._tracer.start_span(
            name,
            context=context or Context(),
            kind=trace.SpanKind[options.get("kind", "internal").upper()],
            attributes=dict(options.get("attributes", {})),
        )
        return LiveSpan(span, parent=above, lazy=options.get("lazy", False))


def _remote(traceparent: str) -> Context | None:
    """Return the context of a traceparent; None if it is not valid."""
    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def _resource(service: str) -> Resource:
    # `Resource.create` goes through all installed packages, which would delay a job.
    named = OTELResourceDetector().detect()
    ours: dict[str, Value] = {"telemetry.sdk.language": "python", "process.pid": os.getpid()}
    if "service.name" not in named.attributes:
        ours |= {"service.name": service, "service.namespace": "usher"}
    return Resource(ours).merge(named)


def _exporters() -> list[SpanExporter]:
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return [_exporter(name.strip().lower()) for name in wanted.split(",")]


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        # The default format is many lines for a span, and our logs have one line per event.
        return ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + os.linesep)
    if name == "otlp":
        protocol = (
            os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        if protocol not in _OTLP:
            raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is none of {sorted(_OTLP)}")
        otlp: SpanExporter = import_module(_OTLP[protocol]).OTLPSpanExporter()
        return otlp
    for entry_point in entry_points(group="opentelemetry_traces_exporter", name=name):
        other: SpanExporter = entry_point.load()()
        return other
    raise ValueError(f"OTEL_TRACES_EXPORTER={name}: there is no such exporter here")


class _Watched(SpanExporter):
    """An exporter that logs once that it cannot deliver, and once that it can again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._delivers = True
        # A job process is silent: its agent server logs it for all of them.
        alone = multiprocessing.parent_process() is None
        self._level = logging.WARNING if alone else logging.DEBUG
        # A full queue is a consequence of that, so it is not logged.
        logging.getLogger("opentelemetry.sdk._shared_internal").addFilter(lambda _: self._delivers)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        token = _exporting.set(True)
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        finally:
            _exporting.reset(token)
        delivered = result is SpanExportResult.SUCCESS
        if self._delivers and not delivered:
            logger.log(
                self._level,
                "traces cannot be delivered, which does no harm to sessions; look at "
                "OTEL_EXPORTER_OTLP_ENDPOINT and at what listens there",
            )
        elif delivered and not self._delivers:
            logger.log(self._level, "traces are delivered again")
        self._delivers = delivered
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _stop_at_the_end(provider: TracerProvider) -> None:
    """Have the process export its last spans when it ends, and wait `STOP_S` at most."""
    ending = threading.Event()

    def stop() -> None:
        ending.wait()
        provider.shutdown()

    # Started now: Python starts no new threads at its end.
    stopping = threading.Thread(target=stop, name="traces-end", daemon=True)
    stopping.start()

    def at_the_end() -> None:
        ending.set()
        stopping.join(STOP_S)

    # Unlike a function of atexit, it is also called in the job processes of an agent server.
    Finalize(None, at_the_end, exitpriority=10)
