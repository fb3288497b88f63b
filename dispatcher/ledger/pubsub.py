"""Redis subscription of a process, which wakes coroutines that wait for news of a dispatch.

One task subscribes to the news of all dispatches, and alone uses that connection: redis-py (8.1)
reconnects it for the reader and for each simultaneous subscriber, loses connections by that, and
raises RuntimeError or AttributeError to the second one. A coroutine listens for one dispatch id and
is woken by the event's name that `advance` publishes. A lost message costs the rest of the caller's
polling period, so nothing here is retried or stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from dispatcher.connections import sentinel
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.ledger.keys import CAPACITY_CHANNEL, WAKE_PREFIX, wake_channel
from dispatcher.settings import CommonSettings

_RECONNECT_S = 0.5


class Wakeups:
    """The process's subscription to the ledger's news; belongs to one event loop."""

    def __init__(
        self,
        settings: CommonSettings,
        guard: Guard,
        *,
        patterns: Sequence[str] = (f"{WAKE_PREFIX}*", CAPACITY_CHANNEL),
        channels: Sequence[str] = (),
    ) -> None:
        """Subscribe to these patterns and channels, once there is a listener.

        Redis lets a user with rights to some channels subscribe to a pattern only if that very
        pattern is among its rights. The listeners to one of `channels` are woken by each
        subscription, too: what was published before is lost.
        """
        self._guard = guard
        self._patterns, self._channels = patterns, channels
        self._redis = sentinel.connect_async(
            settings.redis_url.get_secret_value(),
            # Bounds connecting and subscribing; redis-py does not apply it to the wait for
            # messages.
            timeout_s=settings.redis_worker_timeout_s,
            decode_responses=True,
        )
        self._listeners: dict[str, dict[asyncio.Event, Collection[str]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()  # the first try to subscribe is over, with or without success

    def listen(
        self, dispatch_id: str, *, but: Collection[str] = ()
    ) -> AbstractAsyncContextManager[asyncio.Event]:
        """Yield an event that is set whenever the record of `dispatch_id` changes.

        Args:
            but: events of the timeline that do not wake the caller.
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
        try:
            if self._reader is None:
                reading = self._guard.keep(Work.READ_NEWS, self._read)
                self._reader = asyncio.create_task(reading, name="wakeups")
            await self._tried.wait()
            yield event
        finally:
            del listeners[event]
            if not listeners and self._listeners.get(channel) is listeners:
                del self._listeners[channel]

    async def _read(self) -> None:
        while True:
            pubsub = self._redis.pubsub()
            try:
                if self._patterns:
                    await pubsub.psubscribe(*self._patterns)
                if self._channels:
                    await pubsub.subscribe(*self._channels)
                self._tried.set()
                await self._pass_on(pubsub)
            except RedisError:
                pass  # Redis is away or refuses: BUSY leaves a connection that hears nothing
            finally:
                self._tried.set()
                with contextlib.suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py has no types
            await asyncio.sleep(_RECONNECT_S)

    async def _pass_on(self, pubsub: PubSub) -> None:
        """Wake the listeners of each message, until no message is left.

        The loop ends without a message because redis-py 8.1 takes the kernel's ETIMEDOUT (the
        machine of Redis has vanished) for its own time-out, again and again and without a pause.
        """
        while (message := await pubsub.get_message(timeout=None)) is not None:
            if message["type"] in ("pmessage", "message", "subscribe"):
                for event, but in self._listeners.get(message["channel"], {}).items():
                    if message["data"] not in but:
                        event.set()

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await sentinel.close_async(self._redis)
