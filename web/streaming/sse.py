"""The event stream of one dispatch: server-sent events, as a generator in a Flask response.

First comes `snapshot`, the record; then each event of its timeline as `timeline`; last `end`, the
record as it has ended. An event's id is its number in the timeline, so that `Last-Event-ID` resumes
where a connection was lost.

A stream holds one greenlet (with gunicorn's threads: one thread) for as long as it is open.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from flask import Response, request

from dispatcher.domain.models import TERMINAL, Dispatch
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, queries
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.queries import News
from dispatcher.ledger.step import Step, T
from web.contract.answer_schemas import dispatch_answer, event_answer
from web.contract.problems import Problem, too_many, unavailable
from web.server import slow_callers
from web.settings import StreamSettings
from web.streaming.changes import Changes

MEDIA_TYPE: Final = "text/event-stream"
# A message of the ledger's may be lost; this is also how soon a caller's hanging up is seen.
POLL_S: Final = 1.5
# Less than any proxy's idle time-out, and soon enough to find a dead connection.
HEARTBEAT_S: Final = 12.0
# A caller that does not read for so long is cut off.
WRITE_S: Final = 10.0
# A key or token is checked only when a stream opens, so no stream may last for ever.
MAX_AGE_S: Final = 3600.0
RETRY_MS: Final = 1000
# Of all streams together: one change may wake hundreds, and each would keep a connection open.
READS_AT_ONCE: Final = 8
RETRY_AFTER_S: Final = 5


def position_of(dispatch: Dispatch) -> int:
    """Return the number of the last event in its timeline."""
    return dispatch.timeline_dropped + len(dispatch.timeline)


def frame(event: str, position: int, data: Mapping[str, Any]) -> bytes:
    """Format one server-sent event."""
    return f"id: {position}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


def last_event_id() -> int | None:
    """Return the number of the last event that the present caller has; None when it has none."""
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


class Streams:
    """The open event streams of this process."""

    def __init__(self, store: Ledger, settings: StreamSettings) -> None:
        self._store = store
        self._settings = settings
        self._of_client: Counter[str] = Counter()
        self._of_dispatch: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._changes = Changes(store)
        self._reading = threading.Semaphore(READS_AT_ONCE)
        # Once it returns true every stream ends soon; its page reconnects by itself.
        self.stopping: Callable[[], bool] = lambda: False

    def response(self, dispatch: Dispatch, *, shared: bool) -> Response:
        """Return the answer that streams `dispatch` from now on, or after the caller's last event.

        Args:
            shared: there are several clients, and none may have all the places.

        Raises:
            Problem: 429 or 503, too many are open.
        """
        after = last_event_id()
        if after is not None and after == position_of(dispatch) and dispatch.terminal:
            # The caller has had every event. A 204 tells a browser's EventSource not to reconnect.
            return Response(status=204)
        if request.method == "HEAD":
            answer = Response(mimetype=MEDIA_TYPE)
        else:
            self._reserve(dispatch, shared=shared)
            frames = self._frames(dispatch, after, slow_callers.connection())
            answer = Response(frames, mimetype=MEDIA_TYPE)
            answer.call_on_close(partial(self._release, dispatch))
        answer.headers["X-Accel-Buffering"] = "no"  # nginx would keep events back
        return answer

    def _reserve(self, dispatch: Dispatch, *, shared: bool) -> None:
        """Take a place; clients that share the places may each have as many as are free.

        Why: `docs/decisions/0123-stream-shares.md`.
        """
        most, client_id = self._settings, dispatch.client_id
        with self._lock:
            free = most.streams - self._of_client.total()
            if free <= 0:
                raise unavailable("too many event streams are open; ask for the dispatch itself")
            share = min(most.streams_per_client, free) if shared else most.streams_per_client
            if self._of_dispatch[dispatch.dispatch_id] >= most.streams_per_dispatch:
                raise _too_many("of this dispatch")
            if self._of_client[client_id] >= share:
                raise _too_many("of yours")
            self._of_client[client_id] += 1
            self._of_dispatch[dispatch.dispatch_id] += 1

    def _release(self, dispatch: Dispatch) -> None:
        with self._lock:
            self._of_client[dispatch.client_id] -= 1
            self._of_dispatch[dispatch.dispatch_id] -= 1
            if not self._of_dispatch[dispatch.dispatch_id]:
                del self._of_dispatch[dispatch.dispatch_id]

    def _frames(
        self, dispatch: Dispatch, after: int | None, caller: socket.socket | None
    ) -> Iterator[bytes]:
        position = position_of(dispatch)
        first = f"retry: {RETRY_MS}\n\n".encode()
        if after is None or after > position:
            first += frame("snapshot", position, dispatch_answer(dispatch))
        else:
            position = after
        heartbeat_at = time.monotonic() + HEARTBEAT_S
        until = time.monotonic() + MAX_AGE_S
        with self._changes.of(dispatch.dispatch_id) as changed, _bounded(caller):
            yield first
            while not (self.stopping() or _gone(caller) or time.monotonic() > until):
                changed.clear()
                news = self._read(queries.news(dispatch.dispatch_id, after=position))
                if news is not None and news.state is not None:  # else Redis has lost the record
                    position = news.position
                    end = self._end(dispatch.dispatch_id, news)
                    if more := _timeline(news) + end:
                        yield more
                    if end:
                        return
                if time.monotonic() >= heartbeat_at:
                    yield b": still here\n\n"
                    heartbeat_at = time.monotonic() + HEARTBEAT_S
                changed.wait(POLL_S)

    def _read(self, step: Step[T]) -> T | None:
        """Carry out a step of reading; return None when Redis does not answer."""
        with contextlib.suppress(LedgerUnavailable), self._reading:
            return self._store.run(step)
        return None

    def _end(self, dispatch_id: str, news: News) -> bytes:
        """Return the last frame; empty as long as the dispatch goes on."""
        if news.state not in TERMINAL:
            return b""
        dispatch = self._read(dispatches.read(dispatch_id))
        if dispatch is None or not dispatch.terminal or position_of(dispatch) != news.position:
            return b""  # it has just been redispatched
        return frame("end", news.position, dispatch_answer(dispatch))


def _too_many(whose: str) -> Problem:
    detail = f"too many event streams {whose} are open; close some, or ask for the dispatch itself"
    return too_many(detail, retry_after_s=RETRY_AFTER_S)


def _timeline(news: News) -> bytes:
    assert news.state is not None
    first = news.position - len(news.events) + 1
    return b"".join(
        frame("timeline", number, event_answer(event, news.state))
        for number, event in enumerate(news.events, start=first)
    )


@contextlib.contextmanager
def _bounded(caller: socket.socket | None) -> Iterator[None]:
    """Cut off a caller that does not read for `WRITE_S`."""
    if caller is None:
        yield
        return
    caller.settimeout(WRITE_S)
    try:
        yield
    finally:
        caller.settimeout(slow_callers.SILENCE_S)


def _gone(caller: socket.socket | None) -> bool:
    """Return whether the caller has hung up."""
    if caller is None:
        return False
    caller.settimeout(0)
    try:
        return caller.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        caller.settimeout(WRITE_S)
