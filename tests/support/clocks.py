"""Simulate in a Redis that its clock has gone back."""

from __future__ import annotations

import re
from typing import Any

import redis

# Sorted sets whose scores are no times: sessions by their state.
_NO_TIMES = ("usher:sessions:",)
_TIME_FIELDS = re.compile(r"\w+_at_ms|alive_till_ms|alone_since_ms")
_NUMBERS = re.compile(r"\d{13}(\.\d+)?")


def goes_back(client: redis.Redis[Any], *, by_s: float) -> None:
    """Move every time that Usher has written, and every expiry, ahead of Redis's clock.

    So they are when the clock has been set back, and after a failover to a replica with a slow
    clock.
    """
    by_ms = int(by_s * 1000)

    def later(found: re.Match[str]) -> str:
        return f"{float(found[0]) + by_ms:.0f}"

    for key in client.scan_iter("usher:*"):
        kind = client.type(key)
        if kind == "zset" and not key.startswith(_NO_TIMES):
            for name, score in client.zrange(key, 0, -1, withscores=True):
                client.zadd(key, {name: score + by_ms})
        elif kind == "string":
            client.set(key, _NUMBERS.sub(later, client.get(key) or ""), keepttl=True)
        elif kind == "hash":
            reports = key in ("usher:agent_servers", "usher:alive")
            for name, value in client.hgetall(key).items():
                if reports or _TIME_FIELDS.fullmatch(name):
                    client.hset(key, name, _NUMBERS.sub(later, value, count=1))
        if (left_ms := client.pttl(key)) > 0:
            client.pexpire(key, left_ms + by_ms)
