"""The span interface that the rest of Usher uses; without tracing a span does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, TypedDict

Value = str | int | float | bool


Kind = Literal["internal", "server", "client", "producer", "consumer"]


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
        """Mark what it stands for as failed."""

    def end(self) -> None:
        """End it. A second end does nothing."""

    def for_others(self) -> AbstractContextManager[object]:
        """Make it the current span of OpenTelemetry's own users."""
        return nullcontext()


NO_SPAN: Final = Span()


class Options(TypedDict, total=False):
    """How a span begins, beside its name.

    Args:
        parent: a W3C traceparent; without one it is a part of the current span.
        root: where there is no parent it begins a trace; otherwise it is none.
        lazy: it is kept only when something happens in it: an event, a part, a failure.
    """

    parent: str
    kind: Kind
    attributes: Mapping[str, Value]
    root: bool
    lazy: bool
