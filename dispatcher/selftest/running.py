"""Run the self-test's checks in order, and end every session that they have started."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher.errors import UsherError
from dispatcher.selftest.counters import Accepts, accepts, too_little
from dispatcher.selftest.deployment import (
    PREFIX,
    Deployment,
    NoAnswer,
    Record,
    Session,
    fresh_room,
)
from dispatcher.selftest.many import at_once
from dispatcher.selftest.participant import Participant, in_room
from dispatcher.selftest.results import Done, Failed, Outcome, Progress, Result, Skipped

# The answer time that every caller is promised (I4).
ANSWER_S: Final = 1.0
_SETTLED_S: Final = 1.0
_LEAVE_S: Final = 15.0
_CLEAN_UP_S: Final = 20.0
_JOINERS: Final = 5
_TOLD: Final = 3  # so many failures are named one by one
_OVER: Final = frozenset({"leaving", "failed", "cancelled", "ended"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The parameters of a run."""

    agent: str  # empty: the client's default one
    concurrency: int
    deadline_s: float
    operator_auth: str  # to read the counters; may be empty


@dataclass
class SelfTest:
    """One run of the self-test. `results` has the results so far, also after an interruption."""

    deployment: Deployment
    options: Options
    progress: Progress
    results: list[Result] = field(default_factory=list)
    _single: Session | None = None  # once its agent has joined
    _participant: Participant | None = None
    _sessions: dict[str, Session] = field(default_factory=dict)
    _records: list[Record] = field(default_factory=list)
    _before: Accepts | Skipped | None = None  # the counters before many sessions at once
    _rooms: set[str] = field(default_factory=set)
    _unanswered: int = 0

    async def run(self) -> None:
        """Run every check; in any case end the sessions that were started."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                checks: dict[str, Callable[[], Awaitable[Done]]] = {
                    "single dispatch": self._one,
                    "agent seen in the room": lambda: self._seen(stack),
                    "idempotency": self._idempotency,
                    f"{self.options.concurrency} at once": self._stress,
                    "counters": self._counted,
                    "cancelled, nothing left": self._ended,
                }
                if await self._check("reachable", self._reachable):
                    for name, check in checks.items():
                        await self._check(name, check)
                    return
                for name in checks:
                    why = "the deployment does not answer as it should"
                    self._add(name, Outcome.SKIPPED, why)
        finally:
            await asyncio.shield(self._clean_up())

    async def _check(self, name: str, check: Callable[[], Awaitable[Done]]) -> bool:
        """Run one check; return whether it passed."""
        self.progress(f"{name} ...")
        began = time.monotonic()
        numbers: dict[str, Any] = {}
        outcome = Outcome.OK
        try:
            message, numbers = await check()
        except Skipped as why:
            outcome, message = Outcome.SKIPPED, str(why)
        except UsherError as error:
            outcome, message = Outcome.FAILED, str(error)
        self._add(name, outcome, message, took_s=time.monotonic() - began, numbers=numbers)
        return outcome is Outcome.OK

    def _add(self, name: str, outcome: Outcome, message: str, **more: Any) -> None:
        self.results.append(Result(name=name, outcome=outcome, message=message, **more))
        self.progress(f"{name}: {outcome}: {message}")

    async def _reachable(self) -> Done:
        alive = await self.deployment.ask("GET", "/healthz")
        if alive.status != 200:
            raise Failed(f"GET /healthz: {alive.status}")
        ready = await self.deployment.ask("GET", "/readyz")
        missing = ", ".join(ready.body.get("not_ready", []))
        if ready.status != 200 or missing:
            raise Failed(f"GET /readyz: {ready.body.get('status', ready.status)}: {missing}")
        listed = await self.deployment.knows_key()
        if listed.status != 200:
            raise Failed(f"GET /api/v1/dispatches: {listed.status}: {listed.detail}")
        took_ms = alive.took_s * 1000
        return f"ready, answers in {took_ms:.0f} ms", {"answer_ms": round(took_ms, 1)}

    async def _ask(self, *, room: str = "", once: str = "") -> Session:
        room = room or fresh_room()
        self._rooms.add(room)  # before the request: its answer may get lost
        self._unanswered += 1
        session = await self.deployment.session(room, agent=self.options.agent, once=once)
        self._unanswered -= 1
        self._sessions.setdefault(session.dispatch_id, session)
        return session

    async def _joined(self, session: Session) -> Record:
        return await self.deployment.joined(session.dispatch_id, within_s=self.options.deadline_s)

    async def _one(self) -> Done:
        session = await self._ask()
        record = await self._joined(session)
        answer_ms, join_ms = session.answer_s * 1000, record["time_to_join_ms"]
        if session.answer_s > ANSWER_S:
            raise Failed(
                f"the answer took {answer_ms:.0f} ms; at most {ANSWER_S:.0f} s is promised"
            )
        self._single = session
        return (
            f"answered in {answer_ms:.0f} ms, agent joined after {join_ms} ms",
            {"answer_ms": round(answer_ms, 1), "time_to_join_ms": join_ms},
        )

    def _single_session(self) -> Session:
        if self._single is None:
            raise Skipped("there is no session")
        return self._single

    async def _seen(self, stack: contextlib.AsyncExitStack) -> Done:
        single = self._single_session()
        joining = in_room(single.server_url, single.token)
        self._participant = await stack.enter_async_context(joining)
        if not await self._participant.sees_agent(within_s=self.options.deadline_s):
            raise Failed("a participant in the room sees no agent, and the record says joined")
        if not await self._participant.keeps_one_agent(for_s=_SETTLED_S):
            raise Failed(f"not exactly one agent in the room: {self._participant.agents()}")
        [seen] = self._participant.agents()
        record = (await self.deployment.record(single.dispatch_id)).body
        if record.get("agent_identity") != seen:
            raise Failed(f"in the room is {seen}; the record names {record.get('agent_identity')}")
        return f"a participant sees exactly one agent, {seen}", {"agent_identity": seen}

    async def _idempotency(self) -> Done:
        single = self._single_session()
        again = await self._ask(room=single.room)
        if again.dispatch_id != single.dispatch_id:
            raise Failed(f"the same room again made a second dispatch, {again.dispatch_id}")
        key, room = fresh_room(), fresh_room()
        first = await self._ask(room=room, once=key)
        second = await self._ask(room=room, once=key)
        if (second.dispatch_id, second.identity) != (first.dispatch_id, first.identity):
            raise Failed("the same request with the same Idempotency-Key was answered otherwise")
        other = await self.deployment.send(single.room, once=key)
        if other.status != 409:
            raise Failed(f"another request with that Idempotency-Key: {other.status}, not 409")
        await self._joined(first)
        if self._participant and not await self._participant.keeps_one_agent(for_s=_SETTLED_S):
            raise Failed(f"asking again brought another agent: {self._participant.agents()}")
        return "asking again made no second dispatch and no second agent", {}

    async def _accepts(self) -> Accepts:
        dispatch_id = self._single_session().dispatch_id
        return await accepts(self.deployment, self.options.operator_auth, dispatch_id)

    async def _stress(self) -> Done:
        try:
            self._before = await self._accepts()
        except Skipped as why:
            self._before = why
        return await at_once(
            self.deployment,
            self._ask,
            self._records,
            count=self.options.concurrency,
            deadline_s=self.options.deadline_s,
            progress=self.progress,
        )

    async def _counted(self) -> Done:
        if not isinstance(self._before, Accepts):
            raise self._before or Skipped("they could not be read before")
        if not self._records:
            raise Skipped("no session has joined")
        after = await self._accepts()
        if after.source != self._before.source:
            raise Skipped("they cannot be read any more")
        rose = after.by_container - self._before.by_container
        expected = Counter(str(record.get("container") or "") for record in self._records)
        if short := too_little(rose, expected):
            raise Failed(f"accepted jobs by {after.source} rose by less: {short}")
        told = ", ".join(f"{name} +{rose[name]}" for name in sorted(expected))
        return (
            f"accepted jobs by {after.source}: {told}, for {expected.total()} sessions",
            {"source": after.source, "rose": dict(rose), "sessions": dict(expected)},
        )

    async def _ended(self) -> Done:
        for session in self._sessions.values():
            answer = await self.deployment.cancel(session.dispatch_id)
            if answer.status != 200:
                raise Failed(f"DELETE {session.dispatch_id}: {answer.status}: {answer.detail}")
        if self._participant and not await self._participant.sees_no_agent(within_s=_LEAVE_S):
            raise Failed(f"{_LEAVE_S:.0f} s after the cancel an agent is still in the room")
        limit = asyncio.Semaphore(_JOINERS)
        others = [each for each in self._sessions.values() if each is not self._single]
        empty = await asyncio.gather(*(_is_left(session, limit) for session in others))
        left = [s.room for s, is_left in zip(others, empty, strict=True) if not is_left]
        if left:
            raise Failed(f"agents are left in {len(left)} room(s): {', '.join(left[:_TOLD])}")
        if live := await self._live():
            raise Failed(f"{len(live)} dispatch(es) have not ended: {', '.join(live[:_TOLD])}")
        return f"{len(self._sessions)} dispatches cancelled, their agents have left", {}

    async def _live(self) -> list[str]:
        """Return the ids of the run's dispatches that have not ended."""
        newest = await self.deployment.newest(pages=2 + len(self._rooms) // 50)
        return [
            str(record["dispatch_id"])
            for record in newest
            if record["room_name"] in self._rooms and record["state"] not in _OVER
        ]

    async def _clean_up(self) -> None:
        """Cancel the dispatches that have not ended; add a result if any may be left."""
        if not self._rooms:
            return
        left: list[str] = ["unknown"]
        with contextlib.suppress(NoAnswer, TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_S):
                for pause_s in (0.0, ANSWER_S):
                    # A request whose answer was not awaited may still be on its way.
                    await asyncio.sleep(pause_s if self._unanswered else 0)
                    for dispatch_id in await self._live():
                        await self.deployment.cancel(dispatch_id)
                left = await self._live()
        if left:
            message = f"rooms {PREFIX}... may be left: {', '.join(left[:_TOLD])}"
            self._add("clean-up", Outcome.FAILED, message)


async def _is_left(session: Session, limit: asyncio.Semaphore) -> bool:
    """Return whether the agents of a cancelled session have left its room."""
    async with limit, in_room(session.server_url, session.token) as participant:
        # LiveKit tells a participant at its connect which others are there.
        return await participant.sees_no_agent(within_s=_LEAVE_S)
