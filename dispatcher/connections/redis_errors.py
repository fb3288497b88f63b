"""Redis's errors that mean "I do not work now", and the remedy for each.

redis-py and kombu treat such a refusal as the answer to the command that was sent, and Celery's
worker ends on it. It says nothing about the command: while it lasts, Redis is as good as down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dispatcher.errors import LedgerUnavailable, StepFailed

NO_CLUSTER: Final = "Redis Cluster is not supported: use one Redis, or Sentinel (docs/redis.md)"

_MAX_CLIENTS: Final = "max number of clients reached"
# By the first word of the error, which stands behind an "ERR" in a script of Redis 6.2.
_REMEDIES: Final[Mapping[str, str]] = {
    "READONLY": "it is a replica: point REDIS_URL at the master, or use redis+sentinel://",
    # The answer to a blocked command (Celery's) at the moment in which Redis becomes a replica.
    "UNBLOCKED": "it has become a replica: point REDIS_URL at the master, or use redis+sentinel://",
    "NOREPLICAS": "bring its replicas back, or lower min-replicas-to-write",
    "MASTERDOWN": "it is a replica that has lost its master: point REDIS_URL at the master",
    "MISCONF": "it cannot save to its disk: free space, or correct its dir and permissions",
    "OOM": "it has no memory left: raise maxmemory, or give it more memory",
    "NOPERM": "its user may not do that: give it the rights that docs/redis.md names",
    "NOAUTH": "it wants a password: put it into REDIS_URL",
    "WRONGPASS": "correct user and password in REDIS_URL",
    "LOADING": "it is loading its data, and is ready when that is done",
    "BUSY": "a script holds it up: SCRIPT KILL ends one that is not Usher's",
    _MAX_CLIENTS: "raise maxclients",
    "MOVED": NO_CLUSTER,
    "CROSSSLOT": NO_CLUSTER,
    "CLUSTERDOWN": NO_CLUSTER,
}
_SIGN: Final = re.compile(rf"\b({'|'.join(_REMEDIES)})\b")
# The place in a script of Usher's: of no use to a reader of the message.
_IN_SCRIPT: Final = re.compile(r",? script: [0-9a-f]{40}, on @user_script:\d+\.?")
_SILENT: Final = "check REDIS_URL and that Redis is up"


def _sign(error: BaseException) -> str:
    if not isinstance(error, RedisError):
        return ""
    if error.status_code in _REMEDIES:
        return str(error.status_code)
    found = _SIGN.search(str(error))
    return found[0] if found else ""


def _refusal(error: RedisError) -> BaseException:
    """Return Redis's own error from a `Refused`; any other error as it is."""
    return error.__cause__ if error.__cause__ and _sign(error.__cause__) else error


class Refused(RedisConnectionError):
    """A connection lost because Redis refuses to work; Celery logs its repr."""

    def __repr__(self) -> str:
        return str(self)


def refuses_to_work(error: ResponseError) -> bool:
    """Return True when Redis says that it does not work now, instead of answering the command."""
    return _sign(error) != ""


def explained(error: RedisError) -> str:
    """Return a sentence with what has happened, what to do, and Redis's own words."""
    refusal = _refusal(error)
    sign = _sign(refusal)
    if sign:
        words = _IN_SCRIPT.sub("", str(refusal)).rpartition(sign)[2].strip(" :.")
        said = f"{sign} {words}".strip()
        return f"Redis refuses to work ({said}); {_REMEDIES[sign]}"
    if isinstance(error, ResponseError):
        return f"Redis answers with an error ({error}); check REDIS_URL and Redis's log"
    name = "TimeoutError" if isinstance(error, RedisTimeoutError) else type(error).__name__
    return f"Redis did not answer ({name}); {_SILENT}"


def unavailable(error: RedisError) -> LedgerUnavailable:
    """Return the error that the ledger's callers get instead of redis-py's."""
    sign = _sign(_refusal(error))
    if sign:
        return LedgerUnavailable(explained(error), refusal=f"{sign}: {_REMEDIES[sign]}")
    if isinstance(error, ResponseError):
        return StepFailed(explained(error))
    return LedgerUnavailable(explained(error))
