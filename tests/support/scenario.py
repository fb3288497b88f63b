"""What a test of a dispatch works with: its room, its Redis, and ways to request and read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis

from dispatcher.domain.models import Dispatch
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.step import Step, T
from tests.support.house import House, Request


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One LiveKit room and one empty Redis, and the dispatches that a test writes there.

    Attributes:
        house: the room, and the participants that the test sends in.
        store: the ledger of `raw`.
        raw: the Redis, for what no ledger step tells.
        request_dispatch: writes a new dispatch for the room, `dsp_1` unless named, as the web does,
            and returns its record.
        look: reads the record of `dsp_1`.
    """

    house: House
    store: Ledger
    raw: redis.Redis
    request_dispatch: Request
    look: Callable[[], Dispatch]

    def run(self, step: Step[T]) -> T:
        """What the ledger answers to one step."""
        return self.store.run(step)
