"""Refuse a Redis Cluster when a process starts.

The scripts of the ledger work on keys of several slots, which no cluster lets one command touch.
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
    """Ask the Redis at `url` whether it is a node of a cluster; it need not answer.

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
        return  # it is away, or refuses: the process lives, and says so
    finally:
        sentinel.close(client)
    if clustered:
        raise ConfigurationError(f"Usher cannot start, set REDIS_URL: {NO_CLUSTER}")
