"""Have Celery and Flower reach the Redis of `REDIS_URL`, the same one as the ledger.

A Redis that answers with an error instead of working (`connections/redis_errors.py`) is a lost
connection for them: Celery's worker ends on an error, and tries again for ever on a lost
connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis import Connection, SSLConnection
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
    """A connection that is lost when Redis refuses to work; before one of redis-py's."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]  # redis-py's
        except ResponseError as error:
            # redis-py says CLIENT when it connects, and does without where its user may not
            # (docs/redis.md gives no right to that).
            if not refuses_to_work(error) or "'client" in str(error):
                raise
            self.disconnect()  # type: ignore[attr-defined]  # redis-py's
            raise Refused(explained(error)) from error


class _Connection(_LostWhenRefused, Connection):
    pass


class _TLSConnection(_LostWhenRefused, SSLConnection):
    pass


class _MasterConnection(_LostWhenRefused, MasterConnection):
    pass


class _MasterTLSConnection(_LostWhenRefused, MasterTLSConnection):
    pass


class Channel(kombu_redis.Channel):
    """kombu's, with connections that are lost when Redis refuses to work."""

    connection_class = _Connection
    connection_class_ssl = _TLSConnection


class Transport(kombu_redis.Transport):
    """What `redis://` and `rediss://` stand for in our processes."""

    Channel = Channel


class SentinelChannel(kombu_redis.SentinelChannel):
    """The same, by Sentinel."""

    connection_class = _MasterConnection
    connection_class_ssl = _MasterTLSConnection


class SentinelTransport(kombu_redis.SentinelTransport):
    """What `sentinel://` stands for in our processes."""

    Channel = SentinelChannel


TRANSPORT_ALIASES |= {
    "redis": f"{__name__}:Transport",
    "rediss": f"{__name__}:Transport",
    "sentinel": f"{__name__}:SentinelTransport",
}


_OVERRIDES: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)


@dataclass(frozen=True, kw_only=True)
class ForCelery:
    """How Celery and Flower reach the same Redis; `use_ssl` is None without TLS."""

    url: str
    use_ssl: dict[str, Any] | None
    sentinel_options: dict[str, Any]  # empty without Sentinel
    transport_options: dict[str, Any]


def refuse_another(environ: Mapping[str, str]) -> None:
    """Return unless Celery's own variables name another broker, which it would take for ours.

    Raises:
        ConfigurationError: they do. Source: `celery.app.utils.Settings`, `celery.bin.celery`.
    """
    named = [name for name in _OVERRIDES if environ.get(name)]
    if named:
        raise ConfigurationError(
            f"Usher cannot start, {', '.join(named)} would have Celery use another broker than "
            "REDIS_URL's: unset it, and BROKER_URL and RESULT_BACKEND, which `celery` reads, too"
        )


def for_celery(url: str, *, timeout_s: float) -> ForCelery:
    """What of `url` goes into which of Celery's settings.

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
