"""What does a page hear of its dispatch while it happens?

Server-sent events: first `snapshot`, the record; then each event of its timeline as `timeline`; at
last `end`, the record as it has ended. An event's id is its number in the timeline, so that
`Last-Event-ID` goes on where a connection was lost.

All streams of a process live in one event loop in a thread of its own: a stream costs a connection
and some 30 kB, but no thread of gunicorn's.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from flask import Response, request

from dispatcher import ledger, listing
from dispatcher.errors import LedgerUnavailable
from dispatcher.guarding import Guard
from dispatcher.listing import News
from dispatcher.models import TERMINAL, Dispatch
from dispatcher.settings import CommonSettings, StreamSettings
from dispatcher.store import AsyncLedger
from dispatcher.wakeups import Wakeups
from web.answer_schemas import dispatch_answer, event_answer
from web.handover import Detached, check_detachable
from web.problems import Problem, unavailable

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
# A message of the ledger's may be lost.
POLL_S: Final = 1.5
# Less than any proxy's idle time-out, and soon enough to find a dead connection.
HEARTBEAT_S: Final = 12.0
# Whoever does not read for so long is cut off.
WRITE_S: Final = 10.0
# A key or token is looked at when a stream opens: nobody reads on it for ever.
MAX_AGE_S: Final = 3600.0
RETRY_MS: Final = 1000
# Of all streams together: one change may wake hundreds, and a connection each would stay open.
LOOKS_AT_ONCE: Final = 8
RETRY_AFTER_S: Final = 5


def position_of(dispatch: Dispatch) -> int:
    """The number of the last event in its timeline."""
    return dispatch.timeline_dropped + len(dispatch.timeline)


def frame(event: str, position: int, data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"id: {position}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


def last_event_id() -> int | None:
    """The number of the last event that the present caller has; None when it has none."""
    text = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


class Streams:
    """The open event streams of this process."""

    def __init__(self, common: CommonSettings, settings: StreamSettings) -> None:
        self._common = common
        self._settings = settings
        self._open: Counter[str] = Counter()  # by client, and by dispatch
        self._open_of: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ledger: AsyncLedger
        self._wakeups: Wakeups
        self._looking = asyncio.Semaphore(LOOKS_AT_ONCE)
        atexit.register(self.close)

    def response(self, dispatch: Dispatch, *, shared: bool) -> Response:
        """The answer that streams `dispatch` from now on, or from the caller's last event on.

        Args:
            shared: there are several clients, and none may have all the places.

        Raises:
            Problem: 429 or 503, too many are open; 501, this server cannot stream.
        """
        after = last_event_id()
        if after is not None and after == position_of(dispatch) and dispatch.terminal:
            # It has had everything. To a browser's EventSource a 204 says: do not come back.
            return Response(status=204)
        if request.method == "HEAD":
            answer = Response(mimetype=MEDIA_TYPE)
        else:
            check_detachable()
            self._reserve(dispatch, shared=shared)

            def take_over(connection: socket.socket, head: bytes) -> None:
                stream = self._serve(connection, head, dispatch, after)
                asyncio.run_coroutine_threadsafe(stream, self._running())

            answer = Detached(take_over, mimetype=MEDIA_TYPE)
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Accel-Buffering"] = "no"  # nginx would keep events back
        return answer

    def _reserve(self, dispatch: Dispatch, *, shared: bool) -> None:
        """Take a place.

        Where clients share them each may have as many as are free: of n that want all, each gets
        one part of n + 1, and one part is left for the next.
        """
        most, client_id = self._settings, dispatch.client_id
        with self._lock:
            free = most.streams - self._open.total()
            if free <= 0:
                raise unavailable("too many event streams are open; ask for the dispatch itself")
            share = min(most.streams_per_client, free) if shared else most.streams_per_client
            if self._open_of[dispatch.dispatch_id] >= most.streams_per_dispatch:
                raise _too_many("of this dispatch")
            if self._open[client_id] >= share:
                raise _too_many("of yours")
            self._open[client_id] += 1
            self._open_of[dispatch.dispatch_id] += 1

    def _release(self, dispatch: Dispatch) -> None:
        with self._lock:
            for places, name in (
                (self._open, dispatch.client_id),
                (self._open_of, dispatch.dispatch_id),
            ):
                places[name] -= 1
                if not places[name]:
                    del places[name]

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, started with the first stream (after any fork)."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # Made here, used in the loop only: they connect at their first use.
                self._ledger = AsyncLedger(self._common)
                self._wakeups = Wakeups(self._common, Guard(self._ledger))
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="streams", daemon=True
                )
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Stop; the connections end with the process."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=2)

    async def _serve(
        self, connection: socket.socket, head: bytes, dispatch: Dispatch, after: int | None
    ) -> None:
        try:
            connection.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                async with asyncio.timeout(MAX_AGE_S):
                    writer.write(head)
                    await self._tell(reader, writer, dispatch, after)
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), WRITE_S)
            finally:
                writer.transport.abort()
        except (OSError, TimeoutError):
            connection.close()  # it has gone, it does not read, or it has been here for long
        except Exception:
            logger.exception("event stream", extra={"dispatch_id": dispatch.dispatch_id})
        finally:
            self._release(dispatch)

    async def _tell(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        dispatch: Dispatch,
        after: int | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        position = position_of(dispatch)
        first = f"retry: {RETRY_MS}\n\n".encode()
        if after is None or after > position:
            first += frame("snapshot", position, dispatch_answer(dispatch))
        else:
            position = after
        await _send(writer, first)
        heartbeat_at = loop.time() + HEARTBEAT_S
        async with (
            self._wakeups.listen(dispatch.dispatch_id) as changed,
            _gone(reader, changed) as gone,
        ):
            while not gone.done():
                changed.clear()
                news = await self._news(dispatch.dispatch_id, position)
                if news is not None:
                    await _send(writer, _frames(news))
                    position = news.position
                    if await self._ended(writer, dispatch.dispatch_id, news):
                        return
                if loop.time() >= heartbeat_at:
                    await _send(writer, b": still here\n\n")
                    heartbeat_at = loop.time() + HEARTBEAT_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), POLL_S)

    async def _news(self, dispatch_id: str, position: int) -> News | None:
        """What has happened since; None when Redis does not say, or has lost the record."""
        try:
            async with self._looking:
                news = await self._ledger.run(listing.news(dispatch_id, after=position))
        except LedgerUnavailable:
            return None
        return None if news.state is None else news

    async def _ended(self, writer: asyncio.StreamWriter, dispatch_id: str, news: News) -> bool:
        if news.state not in TERMINAL:
            return False
        try:
            async with self._looking:
                dispatch = await self._ledger.run(ledger.read(dispatch_id))
        except LedgerUnavailable:
            return False
        if dispatch is None or not dispatch.terminal or position_of(dispatch) != news.position:
            return False  # it has been sent again this very moment
        await _send(writer, frame("end", news.position, dispatch_answer(dispatch)))
        return True


def _too_many(whose: str) -> Problem:
    return Problem(
        429,
        "Too Many Requests",
        f"too many event streams {whose} are open; close some, or ask for the dispatch itself",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def _frames(news: News) -> bytes:
    assert news.state is not None
    first = news.position - len(news.events) + 1
    return b"".join(
        frame("timeline", first + offset, event_answer(event, news.state))
        for offset, event in enumerate(news.events)
    )


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(data)
        await asyncio.wait_for(writer.drain(), WRITE_S)


@contextlib.asynccontextmanager
async def _gone(
    reader: asyncio.StreamReader, changed: asyncio.Event
) -> AsyncIterator[asyncio.Task[None]]:
    """A task that is done when the caller has closed its connection; `changed` is set then."""

    async def read_to_end() -> None:
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        changed.set()

    task = asyncio.create_task(read_to_end())
    try:
        yield task
    finally:
        task.cancel()
