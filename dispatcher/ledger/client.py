"""The ledger's blocking client, with bounded times (web, beat, CLI).

`async_client.py` is the same with asyncio. Both repeat a step once after a lost connection, and
retry nothing else: the caller decides, and the HTTP answer must come within a second.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from dispatcher.connections import sentinel
from dispatcher.connections.redis_errors import unavailable
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.clock import LedgerClock
from dispatcher.ledger.scripts import script, sha
from dispatcher.ledger.step import Step, T, done
from dispatcher.settings import CommonSettings

# Limit of a process's connections; a caller beyond it is refused at once. redis-py's own limit of
# 100 is below the dispatches and sweeps of a worker that meets a backlog.
MAX_CONNECTIONS = 1000

# Of a process's threads or greenlets: Redis runs one step at a time, and each takes a connection.
AT_ONCE: Final = 16

# Part of the time-out within which Redis's answer still arrives in time; the rest is transport.
_IN_TIME = 0.8

# After a time-out, or while Redis loads its data, callers are refused at once for so long: each
# would wait for its own time-out, and those in line behind it for several.
_REST_S = 0.3

# A process that starts while Redis is slow (it loads its data: 0.2 s for each connection) opens its
# other connections when they are needed.
_WARM_UP_S = 0.2


class Ledger:
    """Carries steps out with a blocking connection pool; one per process, thread-safe."""

    def __init__(self, settings: CommonSettings) -> None:
        self.clock = LedgerClock()
        self.in_time_s = settings.redis_timeout_s * _IN_TIME
        self._resting_until = 0.0
        self._refusal = LedgerUnavailable()  # of the step after which it rests
        # A place for each step at a time. With gevent this queue is C, and a semaphore Python.
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(AT_ONCE):
            self._places.put(None)
        # Clients with a connection each, the last used at the end. redis-py's pool looks at a
        # connection before each use, which takes as long as sending and receiving.
        self._idle: list[redis.Redis] = []
        self._redis = sentinel.connect(
            settings.redis_url.get_secret_value(),
            timeout_s=settings.redis_timeout_s,
            decode_responses=True,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),  # see `worth_repeating`
        )

    def warm_up(self, connections: int) -> None:
        """Open that many connections now, so that the first requests need not; fewer if it is slow.

        Raises:
            LedgerUnavailable: Redis does not answer.
        """
        until = time.monotonic() + _WARM_UP_S
        try:
            while len(self._idle) < connections and time.monotonic() < until:
                self._idle.append(self._connect())
        except RedisError as error:
            raise unavailable(error) from error

    def look_at_clock(self) -> None:
        """Read the ledger's clock from Redis.

        Raises:
            LedgerUnavailable: it does not answer.
        """
        asked_at = time.monotonic()
        self.clock.heard(self.run(reports.ping()), asked_at=asked_at)

    def not_after_ms(self) -> float | None:
        """Return the time, by the ledger's clock, from which a step started now counts as failed.

        None: Redis has never answered, and does not now.
        """
        if self.clock.in_ms(0) is None:
            with contextlib.suppress(LedgerUnavailable):
                self.look_at_clock()
        return self.clock.in_ms(self.in_time_s)

    def run(self, step: Step[T]) -> T:
        """Carry out `step`.

        Raises:
            LedgerUnavailable: Redis is down, hung or refuses to work. A write may have been done.
        """
        return done(step, self._ask(step))

    def _ask(self, step: Step[Any]) -> Any:
        try:
            self._places.get(timeout=self.in_time_s)
        except queue.Empty:
            raise LedgerUnavailable("Redis is asked for more than it does in time") from None
        try:
            return self._ask_now(step)
        finally:
            self._places.put(None)

    def _ask_now(self, step: Step[Any]) -> Any:
        if time.monotonic() < self._resting_until:
            raise LedgerUnavailable(f"a moment ago: {self._refusal}", refusal=self._refusal.refusal)
        try:
            client = self._take()
            try:
                return _evaluate(client, step)
            except RedisError as error:
                if not worth_repeating(error):
                    raise
                return _evaluate(client, step)
            finally:
                self._idle.append(client)
        except RedisError as error:
            raise self._unavailable(error) from error

    def _take(self) -> redis.Redis:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _connect(self) -> redis.Redis:
        client: redis.Redis = self._redis.client()  # type: ignore[no-untyped-call]
        return client

    def _unavailable(self, error: RedisError) -> LedgerUnavailable:
        refusal = unavailable(error)
        if isinstance(error, (RedisTimeoutError, BusyLoadingError)):
            self._refusal = refusal
            self._resting_until = time.monotonic() + _REST_S
        if sentinel.may_be_another(error):
            self._give_back()
            sentinel.forget(self._redis)
        return refusal

    def _give_back(self) -> None:
        """Give the idle connections back to the pool, which looks at each before its next use."""
        idle, self._idle = self._idle, []
        for client in idle:
            client.close()

    @contextlib.contextmanager
    def listen(self, pattern: str) -> Iterator[Callable[[float], str]]:
        """Listen on the channels of `pattern`.

        Yields a function that waits at most so many seconds for a message and returns its channel,
        or "" without a message. It cannot tell whether Redis hangs: `run` a step now and then.

        Raises:
            LedgerUnavailable: the connection is lost; the function raises it too.
        """
        # redis-py has no types here
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]

        def wait(timeout_s: float) -> str:
            try:
                message = pubsub.get_message(timeout=timeout_s)
            except RedisError as error:
                raise unavailable(error) from error
            return message["channel"] if message else ""

        with contextlib.closing(pubsub):
            try:
                pubsub.psubscribe(pattern)
            except RedisError as error:
                raise unavailable(error) from error
            yield wait

    def close(self) -> None:
        """Close every connection."""
        self._give_back()
        sentinel.close(self._redis)


def worth_repeating(error: RedisError) -> bool:
    """Return True when a step is tried once more, at once; every step may be repeated.

    A pooled connection that Redis has closed (a restart) fails at its first use. A Redis that loads
    its data would answer the same again, as late; after a time-out no time is left.
    """
    lost = isinstance(error, RedisConnectionError)
    return lost and not isinstance(error, BusyLoadingError)


def _evaluate(client: redis.Redis, step: Step[Any]) -> Any:
    """Run a step's script; a connection that was lost is made anew first."""
    try:
        return client.evalsha(sha(step.script_name), len(step.keys), *step.keys, *step.args)
    except NoScriptError:
        return client.eval(script(step.script_name), len(step.keys), *step.keys, *step.args)
