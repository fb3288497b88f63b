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
    """Ask the Redis at `url` whether it is a cluster node; a Redis that does not answer passes.

    Raises:
        ConfigurationError: it is one.
    """
    if by_sentinel(url) is not None:
        return
    retry = Retry(NoBackoff(), 0)
    client = sentinel.connect(url, timeout_s=timeout_s, retry=retry)
    try:
        clustered = bool(client.info("cluster").get("cluster_enabled"))
    except RedisError:
        return  # Redis is away or refuses: the process starts and reports it
    finally:
        sentinel.close(client)
    if clustered:
        raise ConfigurationError(f"Usher cannot start, set REDIS_URL: {NO_CLUSTER}")
