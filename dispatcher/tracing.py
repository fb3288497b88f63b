"""How does one trace follow a dispatch from the HTTP request to its agent?

The only module that knows OpenTelemetry, and it loads nothing of it before `start` has found that
tracing is wanted (the standard `OTEL_` variables). The trace's context travels where the dispatch's
other ids do: in its record and in its LiveKit attributes, never in a Celery message, which may be
lost. A span holds ids, states and reasons; no metadata, token, key or text of an error.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from opentelemetry import trace as otel
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

Value = str | int | float | bool
Kind = Literal["internal", "server", "client", "producer", "consumer"]

# At its end a process sends what it has left; with a receiver that hangs, for no longer than this.
STOP_S: Final = 1.0

# They log every try to export by themselves; `_Watched` says it once.
_CHATTY: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
_OTLP: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}


def configured() -> bool:
    """True when the `OTEL_` variables ask for traces."""
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
    """The trace's id, for a log line; empty without a trace."""
    return traceparent[3:35]


class Span:
    """One part of a trace; this one stands for none and does nothing."""

    traceparent: str = ""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes."""

    def event(self, name: str, attributes: Mapping[str, Value]) -> bool:
        """Note that something has happened now; false when this span can take no more."""
        return False

    def link(self, traceparent: str) -> None:
        """Point to a span of another trace."""

    def failed(self, error_type: str) -> None:
        """What it stands for has failed."""

    def end(self) -> None:
        """It is over. A second end does nothing."""


NO_SPAN: Final = Span()
_current: ContextVar[Span] = ContextVar("usher_span", default=NO_SPAN)
_tracer: otel.Tracer | None = None
_guests: TracerProvider | None = None
_starting = threading.Lock()


class _LiveSpan(Span):
    """A span of OpenTelemetry's. One that is `lazy` is forgotten when nothing happens in it."""

    def __init__(self, span: otel.Span, *, parent: Span = NO_SPAN, lazy: bool = False) -> None:
        self.span = span
        self._parent = parent
        self._forget = lazy
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        )

    def keep(self) -> None:
        """Something has happened in it."""
        self._forget = False
        if isinstance(self._parent, _LiveSpan):
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
            from opentelemetry.trace import get_current_span

            self.span.add_link(get_current_span(other).get_span_context())

    def failed(self, error_type: str) -> None:
        if self.span.is_recording():
            from opentelemetry.trace import Status, StatusCode

            self.keep()
            self.span.set_attribute("error.type", error_type)
            self.span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        if self.span.is_recording() and not self._forget:
            self.span.end()


def on() -> bool:
    """True when this process traces."""
    return _tracer is not None


def current() -> Span:
    """The span that the present code runs in."""
    return _current.get()


def begin(
    name: str,
    *,
    parent: str = "",
    kind: Kind = "internal",
    attributes: Mapping[str, Value] | None = None,
    root: bool = False,
    lazy: bool = False,
) -> Span:
    """A span that lasts until its `end()`.

    Args:
        parent: a W3C traceparent; without one it is a part of the current span.
        root: where there is no parent it begins a trace; otherwise it is none.
        lazy: it is kept only when something happens in it: an event, a part, a failure.
    """
    if _tracer is None:
        return NO_SPAN
    from opentelemetry.trace import SpanKind, set_span_in_context

    above = NO_SPAN if parent else current()
    context = _remote(parent)
    if context is None and isinstance(above, _LiveSpan):
        above.keep()
        context = set_span_in_context(above.span)
    if context is None and not root:
        return NO_SPAN
    span = _tracer.start_span(
        name,
        context=context or _nothing(),
        kind=SpanKind[kind.upper()],
        attributes=dict(attributes or {}),
    )
    return _LiveSpan(span, parent=above, lazy=lazy)


@contextmanager
def inside(span: Span) -> Iterator[Span]:
    """The block is a part of `span`, which is not ended by it."""
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
    kind: Kind = "internal",
    attributes: Mapping[str, Value] | None = None,
    lazy: bool = False,
) -> Iterator[Span]:
    """A span as long as the block; an error that leaves it marks it as failed. As `begin`."""
    if _tracer is None:
        yield NO_SPAN
        return
    begun = begin(name, parent=parent, kind=kind, attributes=attributes, lazy=lazy)
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
    """Something has happened to what `parent` is the trace of: an event of the current span.

    Where that is another trace's, or there is none, it is a span of no length of its own, which
    has to say what it is `about`.
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


@contextmanager
def for_others(span: Span) -> Iterator[None]:
    """The block's own use of OpenTelemetry, if any, is a part of `span`."""
    if not isinstance(span, _LiveSpan):
        yield
        return
    from opentelemetry.trace import use_span

    # What the block's errors are to its span is its owner's to say.
    with use_span(span.span, record_exception=False, set_status_on_exception=False):
        yield


def guests() -> TracerProvider | None:
    """For a library's spans: those that are parts of ours are exported with them, others never."""
    return _guests


def _nothing() -> Context:
    """Not what some other instrumentation may have made current."""
    from opentelemetry.context import Context

    return Context()


def _remote(traceparent: str) -> Context | None:
    """The context that a traceparent stands for; None where it is none."""
    if not traceparent:
        return None
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent}
    context = TraceContextTextMapPropagator().extract(carrier, _nothing())
    return context if get_current_span(context).get_span_context().is_valid else None


def start(service: str) -> None:
    """Trace in this process from now on, if the environment says so; call it after any fork.

    A wrong setting is logged as an error, and the process goes on without traces.
    """
    global _tracer, _guests
    if _tracer is not None or not configured():
        return
    with _starting:
        if _tracer is not None:
            return
        try:
            provider, _guests = _providers(service)
        except Exception as error:
            logger.error("no traces: %s; set the OTEL_ variables right, see docs/tracing.md", error)
            return
        _tracer = provider.get_tracer("usher")
        _stop_at_the_end(provider)


def _providers(service: str) -> tuple[TracerProvider, TracerProvider]:
    """Ours, and the guests'."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    named = os.environ.get("OTEL_SERVICE_NAME") or (
        "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    )
    ours: dict[str, Value] = {"process.pid": os.getpid()}
    if not named:
        ours |= {"service.name": service, "service.namespace": "usher"}
    exporters = _exporters()
    # Not `Resource.create`, which goes through all installed packages: a job would wait for that.
    resource = Resource({"telemetry.sdk.language": "python"})
    resource = resource.merge(OTELResourceDetector().detect()).merge(Resource(ours))
    # Ended by `_stop_at_the_end`: the provider's own ending waits half a minute for its receiver.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    of_guests = TracerProvider(
        resource=resource, sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False
    )
    for exporter in exporters:
        processor = BatchSpanProcessor(_Watched(exporter))  # type: ignore[arg-type]  # see there
        provider.add_span_processor(processor)
        of_guests.add_span_processor(processor)
    for name in _CHATTY:
        logging.getLogger(name).addFilter(_not_while_exporting)
    logging.getLogger("opentelemetry.sdk._shared_internal").addFilter(_Once())
    return provider, of_guests


def _exporters() -> list[SpanExporter]:
    """What `OTEL_TRACES_EXPORTER` names.

    Raises:
        ValueError: there is no such exporter or protocol.
    """
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return [_exporter(name.strip().lower()) for name in wanted.split(",")]


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        # Its default is many lines for a span, and our logs have one for everything.
        return ConsoleSpanExporter(formatter=_one_line)
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


def _one_line(span: Any) -> str:
    return str(span.to_json(indent=None)) + os.linesep


class _Exporting(threading.local):
    now = False


_exporting = _Exporting()


def _not_while_exporting(_: logging.LogRecord) -> bool:
    return not _exporting.now


class _Once(logging.Filter):
    """Lets each message through once: a full queue says so for every span that it drops."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.msg in self._said
        self._said.add(record.msg)
        return not said


class _Watched:
    """An exporter that says once that it cannot, and once that it can again.

    Not derived from `SpanExporter`, which is not to be imported before tracing is wanted.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        # A process of one session is silent: its agent server says it for all of them.
        alone = multiprocessing.parent_process() is None
        self._level = logging.WARNING if alone else logging.DEBUG

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        _exporting.now = True
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        finally:
            _exporting.now = False
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            logger.log(
                self._level,
                "traces cannot be delivered, which does no harm to sessions; look at "
                "OTEL_EXPORTER_OTLP_ENDPOINT and at what listens there",
            )
        elif self._failing and not failing:
            logger.log(self._level, "traces are delivered again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _stop_at_the_end(provider: TracerProvider) -> None:
    """Have the process send what it has left when it ends, and wait `STOP_S` at most."""
    from multiprocessing.util import Finalize

    ending, done = threading.Event(), threading.Event()

    def stop() -> None:
        ending.wait()
        provider.shutdown()
        done.set()

    # There beforehand: Python starts no thread any more once it is ending.
    threading.Thread(target=stop, name="traces-end", daemon=True).start()

    def at_the_end() -> None:
        ending.set()
        done.wait(STOP_S)

    # Called by atexit, and, unlike what atexit knows, in the job processes of an agent server too.
    Finalize(None, at_the_end, exitpriority=10)
