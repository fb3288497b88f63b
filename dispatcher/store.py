"""How are the ledger's steps carried out, and for how long may that take?

`Ledger` blocks (web, beat, CLI), `AsyncLedger` awaits (dispatcher, agent server). Neither repeats
anything by itself: the caller decides, and the HTTP answer must come within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from types import TracebackType
from typing import Any, TypeVar

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from dispatcher import reports, sentinels
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger_clock import LedgerClock
from dispatcher.redis_errors import unavailable
from dispatcher.scripts import script
from dispatcher.settings import CommonSettings
from dispatcher.step import Step

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A pooled connection that Redis closed (a restart) fails at its first use, so a lost connection is
# tried once more at once; every step may be repeated. A time-out is not: it has cost the time.
_RETRIES = 1

# Everything that a process may do at once; whoever finds none free is refused at once, and
# redis-py's own 100 are fewer than the dispatches and sweeps of a worker that meets a backlog.
_MAX_CONNECTIONS = 1000

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


@dataclass(slots=True)
class Asked:
    """Steps that Redis has been sent, and whose replies have not been read yet."""

    steps: Sequence[Step[Any]]
    commands: list[tuple[Any, ...]]
    connection: Any = None  # redis-py's, whose methods have no types
    posted: int = 0  # of what was posted on that connection, the replies come first
    unread: int = 0
    lost: RedisConnectionError | None = None
    error: LedgerUnavailable | None = None


def _send(asked: Asked) -> None:
    asked.unread = len(asked.commands)
    packed = asked.connection.pack_commands(asked.commands)
    asked.connection.send_packed_command(packed)


def _read(asked: Asked) -> list[Any]:
    replies: list[Any] = []
    while asked.posted:
        try:
            asked.connection.read_response()
        except ResponseError as error:
            logger.warning("Redis refuses what nobody waits for", extra={"error": str(error)})
        asked.posted -= 1
    while asked.unread:
        try:
            replies.append(asked.connection.read_response())
        except ResponseError as error:
            replies.append(error)
        asked.unread -= 1
    return replies


# With Redis hung every caller would wait for its own time-out, and those in line behind them for
# several; so for this long after a time-out callers are refused at once.
_REST_S = 0.3


class Ledger:
    """Carries steps out with a blocking connection pool; one per process, thread-safe."""

    def __init__(self, settings: CommonSettings) -> None:
        self.clock = LedgerClock()
        self.in_time_s = settings.redis_timeout_s * _IN_TIME
        self._resting_until = 0.0
        # Connections for `ask` that are as they should be, with how many posted steps' replies are
        # to be read from them.
        self._kept: list[tuple[Any, int]] = []
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

    def run(self, step: Step[T], *, tell: bool = True) -> T:
        """Carry out `step`; with `tell` false its caller sees to `step.tell`.

        Raises:
            LedgerUnavailable: Redis is down, hung or refuses to work. A write may have been done.
        """
        reply = self._ask(step)
        return _done(step, reply) if tell else step.parse(reply)

    def ask(self, steps: Sequence[Step[Any]]) -> Asked:
        """Send Redis several steps in one go, to be carried out in their order.

        What it replies is read by `replies`, which has to be called; in between is time for work.
        """
        return self._begin(
            steps,
            [
                ("EVALSHA", _sha(step.script_name), len(step.keys), *step.keys, *step.args)
                for step in steps
            ],
        )

    def post(self, step: Step[Any]) -> None:
        """Send Redis a step whose outcome nobody waits for.

        Its reply is read with that to the next question. It may get lost with the connection, and
        what Redis says against it stands in the log.
        """
        # Its source, not its hash: nobody would say it again to a Redis that does not know it.
        source = script(step.script_name)
        command = ("EVAL", source, len(step.keys), *step.keys, *step.args)
        asked = self._begin([step], [command])
        if asked.error is not None or asked.lost is not None:
            self._give_back(asked)
        else:
            self._kept.append((asked.connection, asked.posted + 1))

    def _begin(self, steps: Sequence[Step[Any]], commands: list[tuple[Any, ...]]) -> Asked:
        asked = Asked(steps=steps, commands=commands)
        try:
            self._check_rest()
            asked.connection, asked.posted = self._connection()
            _send(asked)
        except RedisConnectionError as error:
            asked.lost = error
        except RedisError as error:
            asked.error = self._unavailable(error)
        except LedgerUnavailable as error:
            asked.error = error
        except BaseException:
            self._give_back(asked)  # nobody will ask for its replies
            raise
        return asked

    def replies(self, asked: Asked) -> list[Any]:
        """What Redis replies to each of the steps; `step.parse` makes its answer of it.

        Where there is none, `LedgerUnavailable` stands in its place: Redis is down, hung or refuses
        to work. A write may have been done.
        """
        try:
            if asked.error is not None:
                raise asked.error
            replies = self._read(asked)
        except RedisError as error:
            return [self._unavailable(error)] * len(asked.steps)
        except LedgerUnavailable as error:
            return [error] * len(asked.steps)
        finally:
            self._give_back(asked)
        for at, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                replies[at] = self._with_script(asked.steps[at])
            elif isinstance(reply, RedisError):
                replies[at] = self._unavailable(reply)
        return replies

    def _read(self, asked: Asked) -> list[Any]:
        if asked.lost is None:
            try:
                return _read(asked)
            except RedisConnectionError as error:
                asked.lost = error
        if asked.connection is None:
            raise asked.lost
        asked.posted = 0
        # It may be open still (LOADING is a lost connection for redis-py), with replies unread.
        asked.connection.disconnect()
        _send(asked)  # once more, by a new connection
        return _read(asked)

    def _connection(self) -> tuple[Any, int]:
        """A kept one, or one of the pool's; and how many replies are to be read from it.

        The pool looks at its own before it lends them, which costs as much as the question. Redis
        may have closed the kept one; that is found out by asking, and it is asked once more.
        """
        try:
            return self._kept.pop()
        except IndexError:
            return self._redis.connection_pool.get_connection(), 0

    def _give_back(self, asked: Asked) -> None:
        if asked.connection is None:
            return
        unread = asked.unread or asked.posted
        if unread:
            asked.connection.disconnect()
        if unread or self._kept:
            self._redis.connection_pool.release(asked.connection)
        else:
            self._kept.append((asked.connection, 0))
        asked.connection = None

    def _with_script(self, step: Step[Any]) -> Any:
        try:
            return self._ask(step)
        except LedgerUnavailable as error:
            return error

    def _ask(self, step: Step[Any]) -> Any:
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
        while self._kept:
            self._redis.connection_pool.release(self._kept.pop()[0])
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
