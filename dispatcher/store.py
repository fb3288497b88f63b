"""How are the ledger's steps carried out, and for how long may that take?

`Ledger` blocks (web, beat, CLI), `AsyncLedger` awaits (dispatcher, agent server). Neither repeats
anything by itself: the caller decides, and the HTTP answer must come within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from types import TracebackType
from typing import Any, Final, TypeVar

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from dispatcher import reports, sentinels
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger_clock import LedgerClock
from dispatcher.redis_errors import unavailable
from dispatcher.scripts import script
from dispatcher.settings import CommonSettings
from dispatcher.step import Step

T = TypeVar("T")

# A pooled connection that Redis closed (a restart) fails at its first use, so a lost connection is
# tried once more at once; every step may be repeated. A time-out is not: it has cost the time.
_RETRIES = 1

# Everything that a process may do at once; whoever finds none free is refused at once, and
# redis-py's own 100 are fewer than the dispatches and sweeps of a worker that meets a backlog.
_MAX_CONNECTIONS = 1000

# Of a process's threads or greenlets: Redis does one step at a time, each more takes a connection.
AT_ONCE: Final = 16

# Of its time-out, so long is an answer given that is still read in time: the rest is for its way.
_IN_TIME = 0.8

_RESTING = "Redis did not answer (timed out a moment ago); check REDIS_URL and that Redis is up"


@cache
def _sha(script_name: str) -> str:
    # EVALSHA's name of a script, not a safeguard: Redis itself prescribes SHA-1.
    return sha1(script(script_name).encode(), usedforsecurity=False).hexdigest()


def _done(step: Step[T], reply: Any) -> T:
    """The step's answer; who is to hear of it has heard of it."""
    answer = step.parse(reply)
    if step.tell is not None:
        step.tell(answer)
    return answer


# With Redis hung every caller would wait for its own time-out, and those in line behind them for
# several; so for this long after a time-out callers are refused at once.
_REST_S = 0.3


class Ledger:
    """Carries steps out with a blocking connection pool; one per process, thread-safe."""

    def __init__(self, settings: CommonSettings) -> None:
        self.clock = LedgerClock()
        self.in_time_s = settings.redis_timeout_s * _IN_TIME
        self._resting_until = 0.0
        self._places = threading.Semaphore(AT_ONCE)
        self._redis = sentinels.connect(
            settings.redis_url.get_secret_value(),
            timeout_s=settings.redis_timeout_s,
            decode_responses=True,
            max_connections=_MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), _RETRIES, supported_errors=(RedisConnectionError,)),
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
        """Have Redis say what time it is.

        Raises:
            LedgerUnavailable: it does not answer.
        """
        asked_at = time.monotonic()
        self.clock.heard(self.run(reports.ping()), asked_at=asked_at)

    def not_after_ms(self) -> float | None:
        """When, by the ledger's clock, the caller of what is asked now will be told that it failed.

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
        return _done(step, self._ask(step))

    def _ask(self, step: Step[Any]) -> Any:
        if not self._places.acquire(timeout=self.in_time_s):
            raise LedgerUnavailable("Redis is asked for more than it does in time")
        try:
            return self._ask_now(step)
        finally:
            self._places.release()

    def _ask_now(self, step: Step[Any]) -> Any:
        self._check_rest()
        try:
            try:
                return self._redis.evalsha(
                    _sha(step.script_name), len(step.keys), *step.keys, *step.args
                )
            except NoScriptError:
                return self._redis.eval(
                    script(step.script_name), len(step.keys), *step.keys, *step.args
                )
        except RedisError as error:
            raise self._unavailable(error) from error

    def _check_rest(self) -> None:
        if time.monotonic() < self._resting_until:
            raise LedgerUnavailable(_RESTING)

    def _unavailable(self, error: RedisError) -> LedgerUnavailable:
        if isinstance(error, RedisTimeoutError):
            self._resting_until = time.monotonic() + _REST_S
        if sentinels.may_be_another(error):
            sentinels.forget(self._redis)
        return unavailable(error)

    @contextlib.contextmanager
    def listen(self, pattern: str) -> Iterator[Callable[[float], str]]:
        """Listen on the channels of `pattern`.

        Yields a function that waits at most so many seconds for a message and returns its channel;
        "" when there was none. Whether Redis hangs it cannot tell: `run` something now and then.

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
        sentinels.close(self._redis)


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """What a Redis server says of itself; `appendfsync` is empty where it may not be asked."""

    version: str
    append_only: bool
    appendfsync: str
    eviction: str  # of keys, when memory runs out
    used_bytes: int
    max_bytes: int  # 0: no limit
    evicted: int
    replica: bool
    by_sentinel: bool = False  # which Redis it is, the Sentinels have said
    replicas: int = 0
    min_replicas: int | None = None  # without so many it takes no write; None: it does not tell


class AsyncLedger:
    """Carries steps out with asyncio; one per event loop."""

    def __init__(self, settings: CommonSettings) -> None:
        self.timeout_s = settings.redis_worker_timeout_s
        self._waiting: list[tuple[Step[Any], asyncio.Future[Any]]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._redis = sentinels.connect_async(
            settings.redis_url.get_secret_value(),
            timeout_s=settings.redis_worker_timeout_s,
            decode_responses=True,
            max_connections=_MAX_CONNECTIONS,
            retry=AsyncRetry(NoBackoff(), _RETRIES, supported_errors=(RedisConnectionError,)),
        )

    async def run(self, step: Step[T]) -> T:
        """Carry out `step`.

        Raises:
            LedgerUnavailable: Redis is down, hung or refuses to work. A write may have been done.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((step, waiting))
        if len(self._waiting) == 1:
            loop.call_soon(self._ask_together)
        reply = await waiting
        if isinstance(reply, RedisError):
            raise unavailable(reply) from reply
        return _done(step, reply)

    def _ask_together(self) -> None:
        """Ask what has been wanted in one turn of the loop: a connection and a message for all."""
        asked, self._waiting = self._waiting, []
        task = asyncio.create_task(self._ask(asked), name="ledger")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, asked: list[tuple[Step[Any], asyncio.Future[Any]]]) -> None:
        try:
            replies = await self._replies([step for step, _ in asked])
        except RedisError as error:
            replies = [error] * len(asked)
        except Exception as error:  # a fault of ours: nobody may wait for ever
            for _, waiting in asked:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        lost = [each for each in replies if isinstance(each, RedisError)]
        if any(sentinels.may_be_another(error) for error in lost):
            with contextlib.suppress(RedisError, OSError):  # nobody may wait for ever
                await sentinels.forget_async(self._redis)
        for (_, waiting), reply in zip(asked, replies, strict=True):
            if not waiting.done():  # somebody waits for it still
                waiting.set_result(reply)

    async def _replies(self, steps: Sequence[Step[Any]]) -> list[Any]:
        if len(steps) == 1:
            return [await self._reply(steps[0])]
        pipeline = self._redis.pipeline(transaction=False)
        for step in steps:
            pipeline.evalsha(_sha(step.script_name), len(step.keys), *step.keys, *step.args)
        replies = await pipeline.execute(raise_on_error=False)
        for at, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                replies[at] = await self._reply(steps[at])
        return replies

    async def _reply(self, step: Step[Any]) -> Any:
        try:
            return await self._redis.evalsha(
                _sha(step.script_name), len(step.keys), *step.keys, *step.args
            )
        except NoScriptError:
            return await self._redis.eval(
                script(step.script_name), len(step.keys), *step.keys, *step.args
            )

    async def server_facts(self) -> ServerFacts:
        """How the Redis server is set up.

        Raises:
            LedgerUnavailable: it does not answer, or does not tell.
        """
        try:
            info = await self._redis.info()
        except RedisError as error:
            raise unavailable(error) from error
        settings: dict[str | None, str | None] = {}
        with contextlib.suppress(RedisError):  # hosted ones do not let everybody ask
            for name in ("appendfsync", "min-replicas-to-write"):  # Redis 6 takes one at a time
                settings |= await self._redis.config_get(name)
        return ServerFacts(
            version=str(info.get("redis_version", "unknown")),
            append_only=bool(info.get("aof_enabled", 0)),
            appendfsync=settings.get("appendfsync") or "",
            eviction=str(info.get("maxmemory_policy", "")),
            used_bytes=int(info.get("used_memory", 0)),
            max_bytes=int(info.get("maxmemory", 0)),
            evicted=int(info.get("evicted_keys", 0)),
            replica=info.get("role") == "slave",
            by_sentinel=sentinels.asked_for(self._redis),
            replicas=int(info.get("connected_slaves", 0)),
            min_replicas=int(wanted) if (wanted := settings.get("min-replicas-to-write")) else None,
        )

    async def __aenter__(self) -> AsyncLedger:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await sentinels.close_async(self._redis)
