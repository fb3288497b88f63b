"""A trace collector (OTLP over HTTP) on loopback, which keeps what it receives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class GotSpan:
    """A received span; ids in hex, `parent_id` empty for a root."""

    name: str
    kind: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    links: tuple[str, ...]  # ids of traces
    failed: bool
    start_ns: int
    end_ns: int


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def spans_of(request: ExportTraceServiceRequest) -> Iterator[GotSpan]:
    """Yield every span of one export."""
    for of_resource in request.resource_spans:
        service = _attributes(of_resource.resource.attributes).get("service.name", "")
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield GotSpan(
                    name=span.name,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    service=service,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_attributes(span.attributes),
                    events={event.name: _attributes(event.attributes) for event in span.events},
                    links=tuple(link.trace_id.hex() for link in span.links),
                    failed=span.status.code == 2,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                )


@dataclass
class Collector:
    """A collector that keeps every span. While `hangs` it takes requests and answers none."""

    url: str = ""
    hangs: bool = False
    spans: list[GotSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    asked: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment that has a process export its traces here, at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def take(self, body: bytes) -> bytes | None:
        """Keep the spans of one export; return the answer, None for no answer."""
        self.asked += 1
        if self.hangs:
            return None
        self.bodies.append(body)
        self.spans.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
        return ExportTraceServiceResponse().SerializeToString()

    def trace(self, trace_id: str) -> list[GotSpan]:
        """Return the spans of one trace, in the order in which they began."""
        found = [span for span in list(self.spans) if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.start_ns)

    def wait(
        self, trace_id: str, enough: Callable[[list[GotSpan]], object], *, within_s: float = 20
    ) -> list[GotSpan]:
        """Return the spans of a trace as soon as they are `enough`."""
        until = time.monotonic() + within_s
        while not enough(found := self.trace(trace_id)):
            if time.monotonic() > until:
                raise AssertionError(f"only {[(s.name, sorted(s.events)) for s in found]}")
            time.sleep(POLL_S)
        return found

    def dispatch(self, dispatch_id: str, *, within_s: float = 20) -> str:
        """Return the id of the trace in which the dispatch was requested."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for span in list(self.spans):
                asked = span.name == "POST /api/v1/dispatches"
                if asked and span.attributes.get("usher.dispatch_id") == dispatch_id:
                    return span.trace_id
            time.sleep(POLL_S)
        raise AssertionError(f"no trace of {dispatch_id}")


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = collector.take(body)
            if answer is None:
                collector.closing.wait()
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    collector.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        collector.closing.set()
        server.shutdown()
        serving.join()
        server.server_close()
