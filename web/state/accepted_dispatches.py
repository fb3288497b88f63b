"""Accepted dispatches ("promises") of one process, written again where Redis does not have them.

Redis lacks those accepted while it was away (`delegated`), and those that it has lost since. Every
accepted dispatch is kept until its deadline, or until it has ended, and a thread looks once a
second for what is missing. A delegated one is in a file until it is written, so that another web
process can do that (`web/state/promise_files.py`). The others are in memory only: what is lost with
Redis and this process at the same time the agents write again, each its own record.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from dispatcher.domain.models import NewDispatch, RememberedDispatch, State
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import restoring
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.guarding import ThreadGuard, Work
from dispatcher.observability.state_changes import log_fields
from web.state.promise_files import Spool

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
# For how long a worker without a master tries to write what it has accepted without Redis.
ORPHANS_LAST_S: Final = 30.0
# For how long after its deadline a dispatch is kept.
MARGIN_S: Final = 10.0
# The size of all agent metadata, which is nearly all of a promise's, and the number of promises.
MAX_BYTES: Final = 64_000_000
MAX_PROMISES: Final = 100_000
# How many are looked at every second.
EACH_LOOK: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A dispatch that was answered with a 200; `made_at` is this process's monotonic clock."""

    new: NewDispatch
    made_at: float
    requested_at_ms: int
    delegated: bool


class Promises:
    """The dispatches that this process has accepted lately; thread-safe."""

    def __init__(self, ledger: Ledger, *, retention_s: int, spool: Spool) -> None:
        self._ledger = ledger
        self._spool = spool
        self._guard = ThreadGuard(ledger.run)
        self._retention_s = retention_s
        self._promises: OrderedDict[str, Promise] = OrderedDict()
        self._delegated: dict[tuple[str, str, str], str] = {}
        self._bytes = 0
        self._turn = 0  # where the next look begins, among those that are looked at in turn
        self._lock = threading.Lock()
        self._parent = os.getppid()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="promises", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def remember(self, new: NewDispatch) -> None:
        """Keep a dispatch that is in the ledger, in case Redis loses it."""
        with self._lock:
            while self._full():
                oldest = next((p for p in self._promises.values() if not p.delegated), None)
                if oldest is None:
                    return
                self._forget(oldest)
            self._add(new, delegated=False)

    def delegate(self, new: NewDispatch, *, because: str = "") -> Promise:
        """Keep a dispatch that Redis could not take; for the same room return the same again.

        Raises:
            LedgerUnavailable: too many are kept already.
        """
        with self._lock:
            known = self._delegated.get(_room(new))
            if known is not None:
                return self._promises[known]
            if self._full():
                raise LedgerUnavailable("Redis does not answer, and no more can be remembered")
            self._spool.keep(new)  # before the look can settle it, which deletes the file
            promise = self._add(new, delegated=True)
        logger.warning("delegated to LiveKit", extra={**_log_fields(new), "error": because})
        return promise

    def forget(self, dispatch_id: str) -> None:
        """Forget a dispatch that has ended; the other processes learn of its end by looking."""
        with self._lock:
            if promise := self._promises.get(dispatch_id):
                self._forget(promise)

    def write(self, dispatch_id: str) -> bool:
        """Write a delegated dispatch now; return false when it is none, or is written already.

        Raises:
            LedgerUnavailable: Redis did not answer.
        """
        promise = self._promises.get(dispatch_id)
        if promise is None or not promise.delegated:
            return False
        self._look_at([promise])
        return True

    def _full(self) -> bool:
        return self._bytes >= MAX_BYTES or len(self._promises) >= MAX_PROMISES

    def _add(self, new: NewDispatch, *, delegated: bool, age_s: float = 0.0) -> Promise:
        promise = Promise(
            new=new,
            made_at=time.monotonic() - age_s,
            requested_at_ms=time.time_ns() // 1_000_000 - int(age_s * 1000),
            delegated=delegated,
        )
        self._promises[new.dispatch_id] = promise
        if delegated:
            self._delegated.setdefault(_room(new), new.dispatch_id)
        self._bytes += len(new.agent_metadata)
        return promise

    def _forget(self, promise: Promise) -> None:
        del self._promises[promise.new.dispatch_id]
        self._bytes -= len(promise.new.agent_metadata)
        self._no_longer_delegated(promise)

    def _no_longer_delegated(self, promise: Promise) -> None:
        if not promise.delegated:
            return
        room = _room(promise.new)
        if self._delegated.get(room) == promise.new.dispatch_id:
            del self._delegated[room]
        self._spool.drop(promise.new.dispatch_id)

    def _adopt(self) -> None:
        """Keep what another web process of this machine, now gone, has delegated."""
        for new, age_s in self._spool.orphans(known=self._promises.__contains__):
            with self._lock:
                self._add(new, delegated=True, age_s=age_s)
            logger.warning(
                "took over what a web process that is gone had delegated", extra=_log_fields(new)
            )

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            # Without Redis: the promises are kept until it is back.
            with contextlib.suppress(LedgerUnavailable), self._guard.one(Work.KEEP_PROMISES):
                self.look()

    def look(self) -> None:
        """Write again what Redis does not have, and forget what is past its time.

        Of very many, each look takes the newest, and the others in turn until one is missing
        (`docs/decisions/0046-promises-looked-at-in-parts.md`).

        Raises:
            LedgerUnavailable: Redis did not answer; everything is kept.
        """
        self._adopt()
        with self._lock:
            kept = list(self._promises.values())
        if not kept:
            self._ledger.look_at_clock()  # else the look tells the time, too
        missing = self._look_at_each(self._in_turn(kept))
        if missing and len(kept) > EACH_LOOK:
            self._look_at_each(kept)

    def _in_turn(self, kept: Sequence[Promise]) -> Sequence[Promise]:
        if len(kept) <= EACH_LOOK:
            return kept
        half = EACH_LOOK // 2
        older = kept[:-half]
        start = self._turn if self._turn < len(older) else 0
        self._turn = start + half
        return [*older[start : start + half], *kept[-half:]]

    def _look_at_each(self, kept: Sequence[Promise]) -> int:
        limit = restoring.STANDING_LIMIT
        return sum(self._look_at(kept[at : at + limit]) for at in range(0, len(kept), limit))

    def _look_at(self, kept: Sequence[Promise]) -> int:
        """Look at these, and return how many were missing."""
        news = [promise.new for promise in kept]
        asked_at = time.monotonic()
        stand = self._ledger.run(
            restoring.standing([n.dispatch_id for n in news], [n.client_id for n in news])
        )
        self._ledger.clock.heard(stand.at_ms, asked_at=asked_at)
        lost = missing = 0
        for promise in kept:
            dispatch_id = promise.new.dispatch_id
            if dispatch_id in stand.ended:
                self.forget(dispatch_id)
                continue
            # It may have been forgotten since the look began.
            if dispatch_id in stand.missing and dispatch_id in self._promises:
                if not self._restore(promise):
                    continue
                missing += 1
                lost += not promise.delegated
            with self._lock:
                self._settle(promise)
        if lost:
            logger.error(
                "Redis has lost accepted dispatches; they are written again",
                extra={"dispatches": lost},
            )
        return missing

    def _restore(self, promise: Promise) -> bool:
        """Write it; return false when it alone could not be written."""
        age_ms = int((time.monotonic() - promise.made_at) * 1000)
        # `delegated`: a verification must look whether the agent came.
        remembered = RememberedDispatch(**vars(promise.new), state=State.DELEGATED, age_ms=age_ms)
        step = restoring.restore(remembered, by=restoring.WEB, retention_s=self._retention_s)
        with self._guard.one(Work.KEEP_PROMISES, of=promise.new.dispatch_id):
            self._ledger.run(step)
            return True
        return False

    def _settle(self, promise: Promise) -> None:
        """Note that it is in the ledger: it is no longer delegated, and is forgotten in time."""
        if promise.new.dispatch_id not in self._promises:
            return
        age_s = time.monotonic() - promise.made_at
        if age_s > promise.new.deadline_ms / 1000 + MARGIN_S:
            self._forget(promise)
        elif promise.delegated:
            self._no_longer_delegated(promise)
            self._promises[promise.new.dispatch_id] = replace(promise, delegated=False)

    def close(self) -> None:
        """Look a last time; what cannot be written now is left to the agents, and to the log.

        A worker of a killed master has time for it: no master ends it, and other workers serve.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(timeout=2)
        until = time.monotonic() + (ORPHANS_LAST_S if os.getppid() != self._parent else 0.0)
        while True:
            with contextlib.suppress(LedgerUnavailable):
                self.look()
            with self._lock:
                unwritten = [each.new for each in self._promises.values() if each.delegated]
            if not unwritten or time.monotonic() >= until:
                break
            time.sleep(LOOK_S)
        for new in unwritten:
            logger.error("ends without having written a delegated one", extra=_log_fields(new))


def _room(new: NewDispatch) -> tuple[str, str, str]:
    """Return what is the same for two dispatches that would bring one agent into one room."""
    return new.client_id, new.agent_name, new.room_name


def _log_fields(new: NewDispatch) -> dict[str, object]:
    return {**log_fields(new), "agent_name": new.agent_name}
