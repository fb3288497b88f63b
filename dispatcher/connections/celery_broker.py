"""Connect Celery and Flower to the Redis of `REDIS_URL`, the same one as the ledger's.

For them a Redis that answers with a refusal (`connections/redis_errors.py`) is a lost connection:
Celery's worker ends on an error, and reconnects for ever after a lost connection, every second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery.app import amqp
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis import Connection as RedisConnection
from redis import SSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from dispatcher.connections.redis_errors import Refused, explained, refuses_to_work
from dispatcher.connections.redis_url import by_sentinel, without_tls_options
from dispatcher.connections.sentinel import (
    MasterConnection,
    MasterTLSConnection,
    sentinel_options,
    socket_options,
)
from dispatcher.errors import ConfigurationError


class _LostWhenRefused:
    """Mixin for redis-py's connections: a refusal by Redis loses the connection."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]  # redis-py's
        except ResponseError as error:
            # redis-py sends CLIENT when it connects, and goes on where its user may not do so
            # (docs/redis.md does not grant it).
            if not refuses_to_work(error) or "'client" in str(error):
                raise
            self.disconnect()  # type: ignore[attr-defined]  # redis-py's
            raise Refused(explained(error)) from error


class _Connection(_LostWhenRefused, RedisConnection):
    pass


class _TLSConnection(_LostWhenRefused, SSLConnection):
    pass


class _MasterConnection(_LostWhenRefused, MasterConnection):
    pass


class _MasterTLSConnection(_LostWhenRefused, MasterTLSConnection):
    pass


class Channel(kombu_redis.Channel):
    """kombu's channel, with connections that are lost when Redis refuses to work."""

    connection_class = _Connection
    connection_class_ssl = _TLSConnection


class Transport(kombu_redis.Transport):
    """Transport of `redis://` and `rediss://` in Usher's processes."""

    Channel = Channel


class SentinelChannel(kombu_redis.SentinelChannel):
    """As `Channel`, by Sentinel."""

    connection_class = _MasterConnection
    connection_class_ssl = _MasterTLSConnection


class SentinelTransport(kombu_redis.SentinelTransport):
    """Transport of `sentinel://` in Usher's processes."""

    Channel = SentinelChannel


TRANSPORT_ALIASES |= {
    "redis": f"{__name__}:Transport",
    "rediss": f"{__name__}:Transport",
    "sentinel": f"{__name__}:SentinelTransport",
}


RETRY_S: Final = 1.0


class BrokerConnection(Connection):
    """kombu's connection, with the same short pause between all tries.

    By itself kombu (5.6) waits 2 s, 4 s, and so on up to 30 s between two tries, so that a worker
    or beat may notice the return of Redis half a minute late; a session's deadline is 20 s.
    """

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Connect, with any number of tries. Celery's consumer and beat call it."""
        pauses = {"interval_start": RETRY_S, "interval_step": 0, "interval_max": RETRY_S}
        return super().ensure_connection(*args, **pauses | options)


class AMQP(amqp.AMQP):
    """Celery's AMQP, with `BrokerConnection`."""

    Connection = BrokerConnection


_OVERRIDES: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)


@dataclass(frozen=True, kw_only=True)
class ForCelery:
    """Celery's and Flower's settings for the same Redis; `use_ssl` is None without TLS."""

    url: str
    use_ssl: dict[str, Any] | None
    sentinel_options: dict[str, Any]  # empty without Sentinel
    transport_options: dict[str, Any]


def refuse_another(environ: Mapping[str, str]) -> None:
    """Raise a `ConfigurationError` if one of Celery's own variables names another broker.

    Celery would prefer that. Source: `celery.app.utils.Settings`, `celery.bin.celery`.
    """
    named = [name for name in _OVERRIDES if environ.get(name)]
    if named:
        raise ConfigurationError(
            f"Usher cannot start, {', '.join(named)} would have Celery use another broker than "
            "REDIS_URL's: unset it, and BROKER_URL and RESULT_BACKEND, which `celery` reads, too"
        )


def for_celery(url: str, *, timeout_s: float) -> ForCelery:
    """Translate `url` into Celery's settings.

    Source: `kombu.transport.redis.SentinelChannel`, `celery.backends.redis.SentinelBackend`.
    """
    sentinels = by_sentinel(url)
    options: dict[str, Any] = {}
    if sentinels is None:
        url, use_ssl = without_tls_options(url)
    else:
        url, use_ssl = sentinels.celery_url(), sentinels.tls
        asked = sentinel_options(sentinels, timeout_s=timeout_s) | {"retry": Retry(NoBackoff(), 0)}
        options = {"master_name": sentinels.service, "sentinel_kwargs": asked}
    return ForCelery(
        url=url,
        use_ssl=use_ssl,
        sentinel_options=options,
        transport_options={**socket_options(timeout_s), **options},
    )
