"""Have a real Redis answer errors for a while, each as it comes in life, and work again afterwards.

It goes by Redis's own settings, and so ends at the latest when Redis is started anew: no setting is
written to its file but the one that makes its loading slow, and that is taken out again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import redis

_WORKS_AGAIN_WITHIN_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.05
# Of a command in the append-only file of a stack, about.
_COMMAND_BYTES: Final = 100
# A script is one that "holds Redis up" after so long (5 s by default).
_BUSY_AFTER_MS: Final = 50
_NOWHERE: Final = ("127.0.0.1", 9)  # where no Redis is


class Refusal(StrEnum):
    """The error, by its first word."""

    READONLY = "READONLY"  # it is a replica
    NOREPLICAS = "NOREPLICAS"  # and wants some
    OOM = "OOM"
    NOPERM = "NOPERM"  # its user may not write
    BUSY = "BUSY"  # a script holds it up
    LOADING = "LOADING"  # it was killed, and reads its data


def refuse(
    refusal: Refusal, for_s: float, *, url: str, config: Path, pid: Callable[[], int]
) -> None:
    """Have the Redis at `url` answer this error for so long; returns when it works again.

    `config`: its file of settings, and `pid`: its process or 0 while it is started anew, both for
    LOADING.
    """
    if refusal is Refusal.LOADING:
        _load(for_s, config=config, pid=pid, url=url)
    else:
        with refusing(refusal, url):
            time.sleep(for_s)
    _wait_until_it_works(url)


@contextlib.contextmanager
def refusing(refusal: Refusal, url: str) -> Iterator[None]:
    """Every error but LOADING, for as long as the block lasts."""
    with _KINDS[refusal](url):
        yield


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


@contextlib.contextmanager
def _restored(url: str, restore: Callable[[redis.Redis], object]) -> Iterator[redis.Redis]:
    """Whatever happens meanwhile, even that Redis is started anew (which restores it, too)."""
    with _client(url) as client:
        try:
            yield client
        finally:
            give_up_at = time.monotonic() + _WORKS_AGAIN_WITHIN_S
            while True:
                try:
                    restore(client)
                    break
                except redis.RedisError:
                    if time.monotonic() > give_up_at:
                        raise
                    time.sleep(_LOOK_EVERY_S)


@contextlib.contextmanager
def _with_setting(name: str, value: str, url: str) -> Iterator[None]:
    default = "0"  # of both
    with _restored(url, lambda client: client.config_set(name, default)) as client:
        client.config_set(name, value)
        yield


@contextlib.contextmanager
def _as_replica(url: str) -> Iterator[None]:
    with _restored(url, lambda client: client.execute_command("REPLICAOF", "NO", "ONE")) as client:
        client.execute_command("REPLICAOF", *_NOWHERE)
        yield


@contextlib.contextmanager
def _without_rights(url: str) -> Iterator[None]:
    def may(client: redis.Redis, *rights: str) -> None:
        client.execute_command("ACL", "SETUSER", "default", *rights)

    with _restored(url, lambda client: may(client, "+@all")) as client:
        may(client, "-@write", "-@scripting")
        yield


@contextlib.contextmanager
def _busy(url: str) -> Iterator[None]:
    """A script that never ends, until it is killed."""

    def spin() -> None:
        with redis.Redis.from_url(url) as spinning, contextlib.suppress(redis.RedisError):
            spinning.eval("while true do end", 0)

    def stop(client: redis.Redis) -> None:
        with contextlib.suppress(redis.ResponseError):  # NOTBUSY: started anew meanwhile
            client.script_kill()
        client.config_set("lua-time-limit", 5000)

    with _restored(url, stop) as client:
        client.config_set("lua-time-limit", _BUSY_AFTER_MS)
        thread = threading.Thread(target=spin, name="busy", daemon=True)
        thread.start()
        yield
    thread.join(timeout=5)


_KINDS: Final[dict[Refusal, Callable[[str], AbstractContextManager[None]]]] = {
    Refusal.READONLY: _as_replica,
    Refusal.NOREPLICAS: partial(_with_setting, "min-replicas-to-write", "1"),
    Refusal.OOM: partial(_with_setting, "maxmemory", "1"),
    Refusal.NOPERM: _without_rights,
    Refusal.BUSY: _busy,
}


def _load(for_s: float, *, config: Path, pid: Callable[[], int], url: str) -> None:
    """Killed, and started anew by whoever looks after it, it takes so long to read its data."""
    with _client(url) as client:
        kept_bytes = int(client.info("persistence").get("aof_current_size", 0))
    delay_us = int(for_s * 1e6 / max(1, kept_bytes / _COMMAND_BYTES))
    settings = config.read_text()
    old = pid()
    try:
        config.write_text(f"{settings}key-load-delay {delay_us}\n")
        if old:
            os.kill(old, signal.SIGKILL)
        give_up_at = time.monotonic() + _WORKS_AGAIN_WITHIN_S
        while pid() in (0, old) and time.monotonic() < give_up_at:
            time.sleep(_LOOK_EVERY_S)
        time.sleep(_LOOK_EVERY_S)  # until it has read its settings
    finally:
        config.write_text(settings)


def _wait_until_it_works(url: str) -> None:
    give_up_at = time.monotonic() + _WORKS_AGAIN_WITHIN_S
    with _client(url) as client:
        while True:
            try:
                client.set("a-test-looks-whether-redis-works", 1, px=1)
                return
            except redis.RedisError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(_LOOK_EVERY_S)
