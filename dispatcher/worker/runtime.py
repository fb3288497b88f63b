"""The event loop of a worker process, and the services that its tasks share.

Celery has no asyncio pool, and LiveKit's client is asyncio only. So each worker process has one
event loop in a thread of its own. A task (a thread of Celery's pool) runs its coroutine there and
waits: waiting costs a thread, never the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar

from dispatcher.ledger.guarding import Work
from dispatcher.lifecycle.services import Services, open_services

P = ParamSpec("P")
T = TypeVar("T")


class Runtime:
    """The event loop of a worker process, in a daemon thread, and its services."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="usher-loop", daemon=True).start()
        opened = asyncio.run_coroutine_threadsafe(open_services(), self._loop)
        self.services = opened.result()

    def start(self, work: Work, run: Callable[[Services], Awaitable[None]]) -> None:
        """Run the periodic `work` in the loop for as long as the process lives."""
        kept = self.services.guard.keep(work, lambda: run(self.services))
        asyncio.run_coroutine_threadsafe(kept, self._loop)

    def run(
        self,
        work: Callable[Concatenate[Services, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **options: P.kwargs,
    ) -> T:
        """Run `work(services, ...)` in the loop and wait for its result, in a pool thread."""
        coroutine = work(self.services, *args, **options)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """Return the runtime of this process, started at its first use (after any fork)."""
    return Runtime()
