"""Clients of the Redis of `REDIS_URL`, with or without Sentinel.

Added to what redis-py does: a bound on the time spent on silent Sentinels, a check that the named
master is one, and no further use of old connections after the first has failed.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.sentinel as awaiting
import redis.sentinel as blocking
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from dispatcher.connections.redis_url import BySentinel, by_sentinel

# Errors of a Redis that takes no writes: it is a replica, or has lost its replicas, so that another
# may be the master by now. In a script they stand behind an "ERR" (6.2).
_NOT_THE_MASTER: Final = ("READONLY", "NOREPLICAS", "MASTERDOWN")
# An agent's last words may hold bytes that are not UTF-8; they must not make a record unreadable.
_ANY_TEXT: Final = {"encoding_errors": "replace"}
# By default redis-py looks up its own version among the installed packages for each connection: an
# eighth of an agent server's Python time while 40 agents joined.
_NO_DRIVER_INFO: Final = {"driver_info": None}
_NO_MASTER: Final = "{} is no master any more"
# TCP keepalive, so that a process soon notices that the machine of its Redis has vanished without
# FIN or RST: the kernel probes each connection (docs/decisions/0038-keepalive-to-redis.md).
_KEEPALIVE: Final = {
    "TCP_KEEPIDLE": 3,
    "TCP_KEEPINTVL": 1,
    "TCP_KEEPCNT": 3,
    # The same limit, in ms, for data that is not confirmed: by default it is sent for 15 minutes.
    "TCP_USER_TIMEOUT": (3 + 1 * 3) * 1000,
}
# `socket_keepalive_options` of redis-py and of kombu, as far as this system has them.
KEEPALIVE_OPTIONS: Final[dict[int, int]] = {
    getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)
}


def _is_master(hello: Any) -> bool:
    """Return True if `HELLO` says so: a mapping, or in protocol 2 names and values in turn."""
    told = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    return (told.get("role") or told.get(b"role")) in ("master", b"master")


def _is_no_master(error: ResponseError) -> bool:
    return any(sign in str(error) for sign in _NOT_THE_MASTER)


class MasterConnection(blocking.SentinelManagedConnection):
    """A connection to a Redis that itself says that it is a master, and takes writes.

    A Sentinel that was cut off, or a master that is just coming back, may name the wrong one. A
    refused write is a lost connection, and the reconnect asks the Sentinels again.
    """

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not _is_no_master(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(str(error)) from error

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health=check_health)
        self.send_command("HELLO", self.protocol or 2, check_health=False)  # type: ignore[no-untyped-call]
        if not _is_master(self.read_response()):
            raise RedisConnectionError(_NO_MASTER.format(self.host))


class MasterTLSConnection(MasterConnection, redis.SSLConnection):
    """As `MasterConnection`, with TLS."""


class _AsyncConnection(awaiting.SentinelManagedConnection):
    """As `MasterConnection`, with asyncio."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _is_no_master(error):
                raise
            await self.disconnect()
            raise RedisConnectionError(str(error)) from error

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health=check_health)
        await self.send_command("HELLO", self.protocol or 2, check_health=False)
        if not _is_master(await self.read_response()):
            raise RedisConnectionError(_NO_MASTER.format(self.host))


class _AsyncTLSConnection(_AsyncConnection, redis.asyncio.SSLConnection):
    pass


class _Sentinels(blocking.Sentinel):
    """Sentinels that raise a time-out where they are silent: a time-out is not retried at once."""

    def discover_master(self, service_name: str) -> Any:
        began = time.monotonic()
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except blocking.MasterNotFoundError as error:
            _raise_if_late(error, began, self.sentinel_kwargs)
            raise


class _AsyncSentinels(awaiting.Sentinel):
    """As `_Sentinels`, with asyncio."""

    async def discover_master(self, service_name: str) -> Any:
        began = time.monotonic()
        try:
            return await super().discover_master(service_name)
        except awaiting.MasterNotFoundError as error:
            _raise_if_late(error, began, self.sentinel_kwargs)
            raise


def _raise_if_late(error: Exception, began: float, options: dict[str, Any]) -> None:
    if time.monotonic() - began >= options["socket_timeout"]:
        raise RedisTimeoutError(str(error)) from error


def socket_options(timeout_s: float) -> dict[str, Any]:
    """Return the socket options of every connection, to Redis and to Sentinels."""
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE_OPTIONS,
    }


def sentinel_options(sentinels: BySentinel, *, timeout_s: float) -> dict[str, Any]:
    """Return redis-py's options for the Sentinels; all together may take `timeout_s`."""
    options = socket_options(timeout_s / len(sentinels.hosts))
    if sentinels.sentinel_password:
        options["username"] = sentinels.sentinel_username or None
        options["password"] = sentinels.sentinel_password
    if sentinels.tls is not None:
        options |= {"ssl": True, **sentinels.tls}
    return options


def _redis_options(sentinels: BySentinel) -> dict[str, Any]:
    login = {"username": sentinels.username or None, "password": sentinels.password or None}
    return {"db": sentinels.db, **login, **(sentinels.tls or {})}


def connect(url: str, *, timeout_s: float, **options: Any) -> redis.Redis:
    """Return a client of the Redis of `url`; it opens its connections at their first use."""
    options |= socket_options(timeout_s) | _NO_DRIVER_INFO | _ANY_TEXT
    sentinels = by_sentinel(url)
    if sentinels is None:
        return redis.Redis.from_url(url, **options)
    asked = sentinel_options(sentinels, timeout_s=timeout_s) | {"retry": Retry(NoBackoff(), 0)}
    asking = _Sentinels(sentinels.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    client: redis.Redis = asking.master_for(  # type: ignore[no-untyped-call]
        sentinels.service,
        connection_class=MasterConnection if sentinels.tls is None else MasterTLSConnection,
        **_redis_options(sentinels),
        **options,
    )
    return client


def connect_async(url: str, *, timeout_s: float, **options: Any) -> redis.asyncio.Redis:
    """As `connect`, with asyncio."""
    options |= socket_options(timeout_s) | _NO_DRIVER_INFO | _ANY_TEXT
    sentinels = by_sentinel(url)
    if sentinels is None:
        return redis.asyncio.Redis.from_url(url, **options)
    asked = sentinel_options(sentinels, timeout_s=timeout_s) | {"retry": AsyncRetry(NoBackoff(), 0)}
    asking = _AsyncSentinels(sentinels.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    client: redis.asyncio.Redis = asking.master_for(
        sentinels.service,
        connection_class=_AsyncTLSConnection if sentinels.tls is not None else _AsyncConnection,
        **_redis_options(sentinels),
        **options,
    )
    return client


def may_be_another(error: RedisError) -> bool:
    """Return True when the Sentinels may name another Redis, and old connections are of no use."""
    return isinstance(error, (RedisTimeoutError, RedisConnectionError))


def asked_for(client: redis.asyncio.Redis) -> bool:
    """Return True when Sentinels name the Redis of this client."""
    return isinstance(client.connection_pool, awaiting.SentinelConnectionPool)


def forget(client: redis.Redis) -> None:
    """Close the idle connections, where Sentinel can name another Redis."""
    if isinstance(client.connection_pool, blocking.SentinelConnectionPool):
        client.connection_pool.disconnect(inuse_connections=False)


async def forget_async(client: redis.asyncio.Redis) -> None:
    """As `forget`, with asyncio."""
    if asked_for(client):
        await client.connection_pool.disconnect(inuse_connections=False)


def close(client: redis.Redis) -> None:
    """Close every connection, those to Sentinels too."""
    pool = client.connection_pool
    client.close()
    if isinstance(pool, blocking.SentinelConnectionPool):
        pool.sentinel_manager.close()


async def close_async(client: redis.asyncio.Redis) -> None:
    """As `close`, with asyncio."""
    pool = client.connection_pool
    await client.aclose()
    if isinstance(pool, awaiting.SentinelConnectionPool):
        await pool.sentinel_manager.aclose()
