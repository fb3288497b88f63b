"""The span interface that the rest of Usher uses; without tracing a span does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, TypedDict

Value = str | int | float | bool


Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Span:
    """A span of a trace; this base class does nothing."""

    traceparent: str = ""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes."""

    def event(self, name: str, attributes: Mapping[str, Value]) -> bool:
        """Add an event with the present time; return false if this span takes no more."""
        return False

    def link(self, traceparent: str) -> None:
        """Add a link to a span of another trace."""

    def failed(self, error_type: str) -> None:
        """Mark the span as failed."""

    def end(self) -> None:
        """End the span. A second call does nothing."""

    def for_others(self) -> AbstractContextManager[object]:
        """Make this the current span for libraries that use OpenTelemetry."""
        return nullcontext()


NO_SPAN: Final = Span()


class Options(TypedDict, total=False):
    """The options of a new span, beside its name.

    Args:
        parent: a W3C traceparent; without one the span is a part of the current span.
        root: without any parent the span begins a trace; else (false) there is no span.
        lazy: the span is exported only if something happens in it: an event, a part, a failure.
    """

    parent: str
    kind: Kind
    attributes: Mapping[str, Value]
    root: bool
    lazy: bool
