"""Who waits for news of a dispatch, and how do they hear of it at once?

One subscription per process, shared by every waiting verification: a coroutine listens for one
dispatch id and is woken by the name that `advance` publishes. A lost message costs nothing but the
rest of the caller's polling period, so nothing here is retried or stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager

from redis.exceptions import RedisError

from dispatcher import sentinels
from dispatcher.guarding import Guard, Work
from dispatcher.keys import wake_channel
from dispatcher.settings import CommonSettings

_IDLE_CHANNEL = "usher:wake"  # a subscription must never be empty, or reading it is an error
_RECONNECT_S = 0.5


class Wakeups:
    """The process's subscription to the ledger's news; belongs to one event loop."""

    def __init__(self, settings: CommonSettings, guard: Guard) -> None:
        self._guard = guard
        self._redis = sentinels.connect_async(
            settings.redis_url.get_secret_value(),
            # Bounds connecting and subscribing; redis-py exempts the waiting for messages from it.
            timeout_s=settings.redis_worker_timeout_s,
            decode_responses=True,
        )
        self._pubsub = self._redis.pubsub()
        self._listeners: dict[str, dict[asyncio.Event, Collection[str]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[None] | None = None

    def listen(
        self, dispatch_id: str, *, but: Collection[str] = ()
    ) -> AbstractAsyncContextManager[asyncio.Event]:
        """Yields an event that is set whenever the record of `dispatch_id` changes.

        Args:
            but: events of the timeline that are no news to the caller.
        """
        return self.listen_on(wake_channel(dispatch_id), but=but)

    @contextlib.asynccontextmanager
    async def listen_on(
        self, channel: str, *, but: Collection[str] = ()
    ) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set by every message on `channel` that is not one of `but`."""
        event = asyncio.Event()
        listeners = self._listeners.setdefault(channel, {})
        listeners[event] = but
        with contextlib.suppress(RedisError):
            await self._connect()
            await self._pubsub.subscribe(_IDLE_CHANNEL, channel)
        if self._reader is None:
            reading = self._guard.keep(Work.READ_NEWS, self._read)
            self._reader = asyncio.create_task(reading, name="wakeups")
        try:
            yield event
        finally:
            del listeners[event]
            if not listeners:
                self._listeners.pop(channel, None)
                with contextlib.suppress(RedisError):
                    await self._pubsub.unsubscribe(channel)

    async def _connect(self) -> None:
        """Open the connection, once for all who come meanwhile.

        redis-py opens one for each, keeps the last, and forgets what the others have subscribed to.
        """
        if self._pubsub.connection is not None:
            return
        if self._connecting is None or self._connecting.done():
            opening = self._pubsub.connect()  # type: ignore[no-untyped-call]  # as below
            self._connecting = asyncio.create_task(opening, name="connecting")
        await asyncio.shield(self._connecting)

    async def _read(self) -> None:
        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
                if message is None:
                    # Nothing asks for that, but the kernel's ETIMEDOUT (Redis's machine has gone
                    # without a word) is taken for a time-out of ours by redis-py 8.1, again and
                    # again and without a pause: the whole loop stood still.
                    await self._forget_connection()
                    continue
            except (RedisError, RuntimeError):
                # redis-py connects and subscribes again at the next read. Its RuntimeError says
                # that no subscription has ever come through: Redis was down at the first one. A
                # refusal (BUSY, NOPERM) leaves the connection, and redis-py takes the channel for
                # subscribed to.
                await self._forget_connection()
                continue
            if message["type"] != "message":
                continue  # that a channel has been subscribed to, or left
            for event, but in self._listeners.get(message["channel"], {}).items():
                if message["data"] not in but:
                    event.set()

    async def _forget_connection(self) -> None:
        """Have the next read make a new one."""
        if self._pubsub.connection is not None:
            await self._pubsub.connection.disconnect(nowait=True)
        await asyncio.sleep(_RECONNECT_S)

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py has no types here
        await sentinels.close_async(self._redis)
