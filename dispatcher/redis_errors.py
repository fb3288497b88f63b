"""Tell a Redis that refuses to work from one that has answered, and what to do about it.

redis-py and kombu treat them as answers to the command that was sent, so that Celery's worker ends
on them. They say nothing of that command: for as long as they last Redis is as good as down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

# By the first word of the error, which from within a script stands behind an "ERR".
_REMEDIES: Final[Mapping[str, str]] = {
    "READONLY": "REDIS_URL is a replica: point it at the master, or use redis+sentinel://",
    "NOREPLICAS": "bring its replicas back, or lower min-replicas-to-write",
    "MASTERDOWN": "it is a replica that has lost its master: point REDIS_URL at the master",
    "MISCONF": "it cannot save to its disk: free space, or correct its dir and permissions",
    "OOM": "it has no memory left: raise maxmemory, or give it more memory",
    "NOPERM": "its user may not do that: give it the rights that docs/redis.md names",
    "LOADING": "it is loading its data, and is ready when that is done",
    "BUSY": "a script holds it up: SCRIPT KILL ends one that is not Usher's",
    "max number of clients reached": "raise maxclients",
    "MOVED": "Redis Cluster is not supported: use one Redis, or Sentinel (docs/redis.md)",
    "CROSSSLOT": "Redis Cluster is not supported: use one Redis, or Sentinel (docs/redis.md)",
    "CLUSTERDOWN": "Redis Cluster is not supported: use one Redis, or Sentinel (docs/redis.md)",
}


def _sign(error: RedisError) -> str:
    code = error.status_code or ""
    if code in _REMEDIES:
        return code
    return next((sign for sign in _REMEDIES if sign in str(error)), "")


def refuses_to_work(error: ResponseError) -> bool:
    """True when Redis has not answered the command, but says that it does not work now."""
    return _sign(error) != ""


def explained(error: RedisError) -> str:
    """What has happened and what to do, in a sentence, with Redis's own words."""
    sign = _sign(error)
    if sign:
        return f"Redis refuses to work ({sign}: {error}); {_REMEDIES[sign]}"
    if isinstance(error, ResponseError):
        return f"Redis answers with an error ({error}); check REDIS_URL and Redis's log"
    name = "TimeoutError" if isinstance(error, RedisTimeoutError) else type(error).__name__
    return f"Redis did not answer ({name}); check REDIS_URL and that Redis is up"
