"""How do Celery and Flower reach the Redis of `REDIS_URL`, the same one as the ledger?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import SentinelChannel, SentinelTransport
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.redis_url import by_sentinel, without_tls_options
from dispatcher.sentinels import (
    MasterConnection,
    MasterTLSConnection,
    sentinel_options,
    socket_options,
)


class Channel(SentinelChannel):
    """kombu's, with connections that are lost when their Redis is no master any more."""

    connection_class = MasterConnection
    connection_class_ssl = MasterTLSConnection


class Transport(SentinelTransport):
    """What `sentinel://` stands for in our processes."""

    Channel = Channel


TRANSPORT_ALIASES["sentinel"] = f"{__name__}:Transport"


@dataclass(frozen=True, kw_only=True)
class ForCelery:
    """How Celery and Flower reach the same Redis; `use_ssl` is None without TLS."""

    url: str
    use_ssl: dict[str, Any] | None
    sentinel_options: dict[str, Any]  # empty without Sentinel
    transport_options: dict[str, Any]


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
