"""The ledger's blocking client, with bounded times (web, beat, CLI).

`async_client.py` is the same with asyncio. Apart from a lost connection neither retries: the caller
decides, and the HTTP answer must come within a second.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
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

# A pooled connection that Redis has closed (a restart) fails at its first use, so a step is tried
# once more at once after a lost connection; every step may be repeated. A time-out is not retried:
# the time is used up.
RETRIES = 1

# Limit of a process's connections; a caller beyond it is refused at once. redis-py's own limit of
# 100 is below the dispatches and sweeps of a worker that meets a backlog.
MAX_CONNECTIONS = 1000

# Of a process's threads or greenlets: Redis runs one step at a time, and each takes a connection.
AT_ONCE: Final = 16

# Part of the time-out within which Redis's answer still arrives in time; the rest is transport.
_IN_TIME = 0.8

_RESTING = "Redis did not answer (timed out a moment ago); check REDIS_URL and that Redis is up"


# With Redis hung each caller would wait for its own time-out, and the callers in line behind it for
# several; so callers are refused at once for this long after a time-out.
_REST_S = 0.3


class Ledger:
    """Carries steps out with a blocking connection pool; one per process, thread-safe."""

    def __init__(self, settings: CommonSettings) -> None:
        self.clock = LedgerClock()
        self.in_time_s = settings.redis_timeout_s * _IN_TIME
        self._resting_until = 0.0
        self._places = threading.Semaphore(AT_ONCE)
        self._redis = sentinel.connect(
            settings.redis_url.get_secret_value(),
            timeout_s=settings.redis_timeout_s,
            decode_responses=True,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), RETRIES, supported_errors=(RedisConnectionError,)),
        )

    def warm_up(self, connections: int) -> None:
        """Open that many connections now, so that the first requests need not.

        Raises:
            LedgerUnavailable: Redis does not answer.
        """
        pool = self._redis.connection_pool
        try:
            opened = [pool.get_connection() for _ in range(connections)]
        except RedisError as error:
            raise unavailable(error) from error
        for connection in opened:
            pool.release(connection)

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
        if not self._places.acquire(timeout=self.in_time_s):
            raise LedgerUnavailable("Redis is asked for more than it does in time")
        try:
            return self._ask_now(step)
        finally:
            self._places.release()

    def _ask_now(self, step: Step[Any]) -> Any:
        if time.monotonic() < self._resting_until:
            raise LedgerUnavailable(_RESTING)
        try:
            try:
                return self._redis.evalsha(
                    sha(step.script_name), len(step.keys), *step.keys, *step.args
                )
            except NoScriptError:
                return self._redis.eval(
                    script(step.script_name), len(step.keys), *step.keys, *step.args
                )
        except RedisError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: RedisError) -> LedgerUnavailable:
        if isinstance(error, RedisTimeoutError):
            self._resting_until = time.monotonic() + _REST_S
        if sentinel.may_be_another(error):
            sentinel.forget(self._redis)
        return unavailable(error)

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

        try:
            try:
                pubsub.psubscribe(pattern)
            except RedisError as error:
                raise unavailable(error) from error
            yield wait
        finally:
            pubsub.close()

    def close(self) -> None:
        """Close every connection."""
        sentinel.close(self._redis)
