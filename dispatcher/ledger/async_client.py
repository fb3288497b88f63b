"""The ledger's asyncio client (dispatcher, agent server)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from dispatcher.connections import sentinel
from dispatcher.connections.redis_errors import unavailable
from dispatcher.ledger.client import MAX_CONNECTIONS, worth_repeating
from dispatcher.ledger.scripts import script, sha
from dispatcher.ledger.step import Step, T, done
from dispatcher.settings import CommonSettings


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """A Redis server's settings; `appendfsync` is empty where it may not be asked."""

    version: str
    append_only: bool
    appendfsync: str
    eviction: str  # of keys, when memory runs out
    used_bytes: int
    max_bytes: int  # 0: no limit
    evicted: int
    replica: bool
    by_sentinel: bool = False  # Sentinels have named this Redis
    replicas: int = 0
    min_replicas: int | None = None  # with fewer it takes no write; None: it does not tell


class AsyncLedger:
    """Carries steps out with asyncio; one per event loop."""

    def __init__(self, settings: CommonSettings) -> None:
        self.timeout_s = settings.redis_worker_timeout_s
        self.retention_s = settings.retention_s  # of records that end
        self._waiting: list[tuple[Step[Any], asyncio.Future[Any]]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._redis = sentinel.connect_async(
            settings.redis_url.get_secret_value(),
            timeout_s=settings.redis_worker_timeout_s,
            decode_responses=True,
            max_connections=MAX_CONNECTIONS,
            retry=AsyncRetry(NoBackoff(), 0),  # see `worth_repeating`
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
        return done(step, reply)

    def _ask_together(self) -> None:
        """Send the steps of one turn of the loop together: one connection, one message."""
        asked, self._waiting = self._waiting, []
        task = asyncio.create_task(self._ask(asked), name="ledger")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, asked: list[tuple[Step[Any], asyncio.Future[Any]]]) -> None:
        steps = [step for step, _ in asked]
        try:
            try:
                replies = await self._replies(steps)
            except RedisError as error:
                if not worth_repeating(error):
                    raise
                replies = await self._replies(steps)
        except RedisError as error:
            replies = [error] * len(asked)
        except Exception as error:  # a fault of Usher's: no coroutine may wait for ever
            for _, waiting in asked:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        lost = [each for each in replies if isinstance(each, RedisError)]
        if any(sentinel.may_be_another(error) for error in lost):
            with contextlib.suppress(RedisError, OSError):  # no coroutine may wait for ever
                await sentinel.forget_async(self._redis)
        for (_, waiting), reply in zip(asked, replies, strict=True):
            if not waiting.done():  # a coroutine still waits for it
                waiting.set_result(reply)

    async def _replies(self, steps: Sequence[Step[Any]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for step in steps:
            pipeline.evalsha(sha(step.script_name), len(step.keys), *step.keys, *step.args)
        replies = await pipeline.execute(raise_on_error=False)
        for at, step in enumerate(steps):
            if isinstance(replies[at], NoScriptError):
                replies[at] = await self._redis.eval(
                    script(step.script_name), len(step.keys), *step.keys, *step.args
                )
        return replies

    async def server_facts(self) -> ServerFacts:
        """Return how the Redis server is set up.

        Raises:
            LedgerUnavailable: it does not answer, or does not tell.
        """
        try:
            info = await self._redis.info()
        except RedisError as error:
            raise unavailable(error) from error
        settings: dict[str | None, str | None] = {}
        with contextlib.suppress(RedisError):  # hosted ones do not let every user ask
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
            by_sentinel=sentinel.asked_for(self._redis),
            replicas=int(info.get("connected_slaves", 0)),
            min_replicas=int(wanted) if (wanted := settings.get("min-replicas-to-write")) else None,
        )

    async def __aenter__(self) -> AsyncLedger:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await sentinel.close_async(self._redis)
