"""Make a real Redis refuse commands, with each of its errors, and restore it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_WITHIN_S = 20.0
_ADMIN = "refusing"  # a user of the tests' own, which keeps its rights

Refusal = Callable[[redis.Redis, Path], AbstractContextManager[None]]


def _wait_until(look: Callable[[], bool]) -> None:
    until = time.monotonic() + _WITHIN_S
    while not look():
        assert time.monotonic() < until, "Redis does not do what the test needs"
        time.sleep(0.01)


def _says(client: redis.Redis, word: str) -> bool:
    try:
        client.set("usher-test", "1")
    except redis.RedisError as error:
        return word in f"{error.status_code} {error}"
    return False


def _patient(client: redis.Redis) -> redis.Redis:
    """Make another client of the same Redis, for a command that takes long."""
    options = client.connection_pool.connection_kwargs
    same = {name: options[name] for name in ("host", "port", "username", "password")}
    return redis.Redis(**same, socket_timeout=_WITHIN_S)


@contextlib.contextmanager
def _readonly(client: redis.Redis, _: Path) -> Iterator[None]:
    client.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextlib.contextmanager
def _configured(client: redis.Redis, **values: str) -> Iterator[None]:
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before = {name: client.config_get(name)[name] for name in names}
    for name, value in names.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


def _noreplicas(client: redis.Redis, _: Path) -> AbstractContextManager[None]:
    return _configured(client, min_replicas_to_write="1")


def _oom(client: redis.Redis, _: Path) -> AbstractContextManager[None]:
    return _configured(client, maxmemory="1")


@contextlib.contextmanager
def _misconf(client: redis.Redis, directory: Path) -> Iterator[None]:
    gone = directory / "gone"
    gone.mkdir()
    with _configured(client, save="3600 1"):
        before = client.config_get("dir")["dir"]
        client.config_set("dir", str(gone))
        gone.rmdir()
        client.bgsave()
        _wait_until(lambda: _says(client, "MISCONF"))
        try:
            yield
        finally:
            client.config_set("dir", before)
            client.bgsave()
            _wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")


@contextlib.contextmanager
def _noperm(client: redis.Redis, _: Path) -> Iterator[None]:
    client.execute_command("ACL", "SETUSER", "default", "-@all", "+@connection", "+info")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")


@contextlib.contextmanager
def _busy(client: redis.Redis, _: Path) -> Iterator[None]:
    def run_for_ever() -> None:
        with contextlib.suppress(redis.RedisError), _patient(client) as other:
            other.eval("while true do end", 0)

    with _configured(client, **{"lua-time-limit": "50"}):
        thread = threading.Thread(target=run_for_ever, daemon=True)
        thread.start()
        _wait_until(lambda: _says(client, "BUSY"))
        try:
            yield
        finally:
            client.script_kill()
            thread.join(_WITHIN_S)


@contextlib.contextmanager
def _loading(client: redis.Redis, _: Path) -> Iterator[None]:
    """Have Redis load its data again, slowly: for six seconds, regardless of the block.

    While it loads, Redis 6.2 looks at its clients after every 2 MB, and takes no other setting.
    """
    for number in range(40):
        client.set(f"usher-test:{number}", b"x" * 2_200_000)

    def reload() -> None:
        with contextlib.suppress(redis.RedisError), _patient(client) as other:
            other.execute_command("DEBUG", "RELOAD")

    slowly = {"key-load-delay": "150000", "rdbcompression": "no"}  # us
    with _configured(client, **slowly):
        thread = threading.Thread(target=reload, daemon=True)
        thread.start()
        _wait_until(lambda: _says(client, "LOADING"))
        try:
            yield
        finally:
            thread.join(_WITHIN_S)
            client.delete(*client.scan_iter("usher-test*", count=1000))


REFUSALS: dict[str, Refusal] = {
    "READONLY": _readonly,
    "NOREPLICAS": _noreplicas,
    "MISCONF": _misconf,
    "OOM": _oom,
    "NOPERM": _noperm,
    "BUSY": _busy,
    "LOADING": _loading,
}


@contextlib.contextmanager
def refusing(url: str, word: str, directory: Path) -> Iterator[None]:
    """Have the Redis at `url` answer with that error for as long as the block lasts.

    Args:
        url: with its default user, which may do everything.
        directory: where Redis can be made to look for a folder that does not exist.
    """
    with redis.Redis.from_url(url, decode_responses=True, socket_timeout=5) as client:
        client.execute_command("ACL", "SETUSER", _ADMIN, "on", f">{_ADMIN}", "~*", "&*", "+@all")
        at = client.connection_pool.connection_kwargs
    with redis.Redis(
        host=at["host"],
        port=at["port"],
        username=_ADMIN,
        password=_ADMIN,
        decode_responses=True,
        socket_timeout=10,
        retry=Retry(NoBackoff(), 0),  # redis-py would retry until LOADING is over
    ) as client:
        with REFUSALS[word](client, directory):
            yield
        _wait_until(lambda: client.set("usher-test", "1") is True)
        client.delete("usher-test")
