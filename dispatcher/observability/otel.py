"""The providers of OpenTelemetry's SDK, as its environment configures them.

Only `tracing.start` imports this module, so a process without traces does not load the SDK. The SDK
itself reads sampler, limits, batches, endpoints, headers and certificates from the `OTEL_`
variables. Why this module replaces the rest of its set-up:
`docs/decisions/0132-what-we-keep-writing-ourselves.md`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from importlib import import_module
from importlib.metadata import entry_points
from multiprocessing.util import Finalize
from typing import Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import Tracer

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


def set_up(service: str) -> tuple[Tracer, TracerProvider]:
    """Set up the exporters that the environment names.

    Returns Usher's tracer, and a provider that exports libraries' spans as parts of ours.

    Raises:
        ValueError: a variable names an exporter or a protocol that there is not.
    """
    resource = _resource(service)
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    exporters = [_exporter(name.strip().lower()) for name in wanted.split(",")]
    processors = [BatchSpanProcessor(_Watched(exporter)) for exporter in exporters]
    # `_stop_at_the_end` shuts it down: a provider by itself waits half a minute for a receiver.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    guests = TracerProvider(
        resource=resource, sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False
    )
    for processor in processors:
        provider.add_span_processor(processor)
        guests.add_span_processor(processor)
    for name in _CHATTY:
        logging.getLogger(name).addFilter(lambda _: not _exporting.get())
    _stop_at_the_end(provider)
    return provider.get_tracer("usher"), guests


def _resource(service: str) -> Resource:
    # `Resource.create` goes through all installed packages, which would delay a job.
    named = OTELResourceDetector().detect()
    ours: dict[str, str | int] = {"telemetry.sdk.language": "python", "process.pid": os.getpid()}
    if "service.name" not in named.attributes:
        ours |= {"service.name": service, "service.namespace": "usher"}
    return Resource(ours).merge(named)


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
