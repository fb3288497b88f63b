"""Faults that kill nothing: a server that answers wrongly, a neighbour that asks for too much."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis

from tests.faults.gateway import Garbage, spoil
from tests.faults.neighbour import ENDPOINT, KEY, Excess, command
from tests.faults.refusing_redis import Refusal, refuse
from tests.support.stacks import RunningStack

from .deployment import Deployment
from .journal import Journal
from .plan import ANSWERS, NEIGHBOURS, Fault, Kind

KINDS: Final = frozenset(ANSWERS)
_EXCESSES: Final = {
    Kind.FLOOD: Excess.FLOOD,
    Kind.REDISPATCHES: Excess.REDISPATCH,
    Kind.OVERSIZE: Excess.OVERSIZE,
}
# Turns, all its connections together. A flood is more than may be on its way of all tenants, and
# stays so for a while. No more than that: it shares two cores with everything else.
_TIMES: Final = {Kind.FLOOD: 120, Kind.REDISPATCHES: 60, Kind.OVERSIZE: 6}
_HOLDS, _PAUSE_S = 120, 1.5
_BURST_ENDS_WITHIN_S: Final = 8.0
_PAGE: Final = 100
_OVER: Final = frozenset({"ended", "failed", "cancelled"})
_ASKS_WITHIN_S: Final = 5.0


class Trouble:
    """Carries out a plan's faults of these kinds, on one stack.

    `driver` and `neighbours`: journals of what was done, and of what the neighbour was answered.
    """

    def __init__(
        self, stack: RunningStack, deployment: Deployment, driver: Journal, neighbours: Path
    ) -> None:
        self._stack = stack
        self._deployment = deployment
        self._driver = driver
        self._neighbours = neighbours
        # One at a time: two errors of Redis, or two kinds of garbage, would take each other back.
        self._locks = {kind: asyncio.Lock() for kind in (Kind.GARBAGE, Kind.REFUSES)}

    async def inject(self, fault: Fault, note: Callable[[], int]) -> None:
        """Do it, to its end; `note` writes its beginning down and returns its number."""
        if fault.kind in NEIGHBOURS:
            number = note()
            await self._burst(fault.kind)
            self._over(number)
        else:
            async with self._locks[fault.kind]:
                number, spoiled = note(), 0
                try:
                    spoiled = await self._answer_wrongly(fault)
                except (redis.RedisError, OSError) as error:  # killed just before
                    self._driver.write("no_target", kind=fault.kind, error=repr(error))
                self._over(number, spoiled=spoiled)

    def _over(self, number: int, **more: int) -> None:
        self._driver.write("fault_over", fault=number, **more)

    async def _answer_wrongly(self, fault: Fault) -> int:
        """Returns how many answers were garbage."""
        if fault.kind is Kind.REFUSES:
            await asyncio.to_thread(
                refuse,
                Refusal(fault.how),
                fault.hold_s,
                url=self._stack.redis_url,
                config=self._stack.run_dir / "redis.conf",
                pid=lambda: next(iter(self._stack.pids("redis")), 0),
            )
            return 0
        port, carried_out = self._deployment.gateway_port, fault.pick < 0.5
        return await spoil(port, Garbage(fault.how), for_s=fault.hold_s, carried_out=carried_out)

    async def _burst(self, kind: Kind) -> None:
        burst = await asyncio.create_subprocess_exec(
            *("nice", "-n", "19"),
            *command(
                _EXCESSES[kind],
                self._stack.web_url,
                journal=self._neighbours,
                times=_TIMES[kind],
                holds=_HOLDS,
                pause_s=_PAUSE_S,
            ),
            env={**os.environ, KEY: self._deployment.neighbour_key},
        )
        try:
            await asyncio.wait_for(burst.wait(), _BURST_ENDS_WITHIN_S)
        except TimeoutError:
            burst.terminate()
            await burst.wait()

    async def settle(self, within_s: float) -> None:
        """Wait until each of the neighbour's sessions is over; write down what is said of them."""
        give_up_at = time.monotonic() + within_s
        headers = {"Authorization": f"Bearer {self._deployment.neighbour_key}"}
        timeout = aiohttp.ClientTimeout(total=_ASKS_WITHIN_S)
        async with aiohttp.ClientSession(
            base_url=self._stack.web_url, headers=headers, timeout=timeout
        ) as http:
            while True:
                listed: list[dict[str, Any]] = []
                with suppress(TimeoutError, aiohttp.ClientError):
                    listed = [one async for one in _all_of(http)]
                over = bool(listed) and all(one["state"] in _OVER for one in listed)
                if over or time.monotonic() > give_up_at:
                    break
                await asyncio.sleep(1.0)
        for one in listed:
            self._driver.write(
                "neighbour_record",
                dispatch_id=one["dispatch_id"],
                state=one["state"],
                reason=one["failure_reason"] or "",
            )


async def _all_of(http: aiohttp.ClientSession) -> Any:
    """The tenant's sessions, newest first."""
    parameters: dict[str, str | int] = {"limit": _PAGE}
    while True:
        async with http.get(ENDPOINT, params=parameters) as response:
            response.raise_for_status()
            page = await response.json()
        for one in page["dispatches"]:
            yield one
        if not page["next_cursor"]:
            return
        parameters["cursor"] = page["next_cursor"]
