"""Refuse a Redis Cluster when a process starts.

The ledger's scripts use keys of several slots, and a cluster allows no command to do so.
"""

from __future__ import annotations

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from dispatcher.connections import sentinel
from dispatcher.connections.redis_errors import NO_CLUSTER
from dispatcher.connections.redis_url import by_sentinel
from dispatcher.errors import ConfigurationError


def refuse_cluster(url: str, *, timeout_s: float) -> None:
    """Raise a `ConfigurationError` if the Redis at `url` is a cluster's; pass one that is away."""
    if by_sentinel(url) is not None:
        return
    client = sentinel.connect(url, timeout_s=timeout_s, retry=Retry(NoBackoff(), 0))
    try:
        clustered = bool(client.info("cluster").get("cluster_enabled"))
    except RedisError:
        return  # the process starts and reports it
    finally:
        sentinel.close(client)
    if clustered:
        raise ConfigurationError(f"Usher cannot start, set REDIS_URL: {NO_CLUSTER}")
