"""Run the self-test's checks in order, and end every session that they have started."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher.errors import UsherError
from dispatcher.selftest.counters import Accepts, Counters, rises, too_little
from dispatcher.selftest.deployment import Deployment, NoAnswer
from dispatcher.selftest.many import at_once
from dispatcher.selftest.participant import Participant, in_room
from dispatcher.selftest.results import Done, Outcome, Progress, Result
from dispatcher.selftest.sessions import PREFIX, Session, Went, ask_for, fresh_room, joined

# The answer time that every caller is promised (I4).
ANSWER_S: Final = 1.0
_SETTLED_S: Final = 1.0
_LEAVE_S: Final = 15.0
_CLEAN_UP_S: Final = 20.0
_JOINERS: Final = 5
_TOLD: Final = 3  # so many failures are named one by one
_LIVE: Final = frozenset(
    {
        *("queued", "dispatching", "dispatched", "offered", "accepted", "joined"),
        *("waiting", "delegated"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The parameters of a run."""

    agent: str  # empty: the client's default one
    concurrency: int
    deadline_s: float


@dataclass
class SelfTest:
    """One run of the self-test. `results` has the results so far, also after an interruption."""

    deployment: Deployment
    counters: Counters
    options: Options
    progress: Progress
    results: list[Result] = field(default_factory=list)
    _single: Session | None = None
    _participant: Participant | None = None
    _sessions: dict[str, Session] = field(default_factory=dict)
    _records: list[Mapping[str, Any]] = field(default_factory=list)
    _before: Accepts | None = None
    _rooms: set[str] = field(default_factory=set)
    _asked: int = 0
    _answered: int = 0

    async def run(self) -> None:
        """Run every check; in any case end the sessions that were started."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                if not await self._check("reachable", self._reachable):
                    self._skip_rest("the deployment does not answer as it should")
                    return
                if await self._check("single dispatch", self._one):
                    await self._check("agent seen in the room", lambda: self._seen(stack))
                    await self._check("idempotency", self._idempotency)
                else:
                    self._skip("there is no session", "agent seen in the room", "idempotency")
                await self._read_counters()
                await self._check(f"{self.options.concurrency} at once", self._stress)
                await self._check("counters", self._counted)
                await self._check("cancelled, nothing left", self._ended)
        finally:
            await asyncio.shield(self._clean_up())

    async def _check(self, name: str, check: Callable[[], Awaitable[Done | str]]) -> bool:
        """Run one check; a text alone says why it was skipped. Return whether it passed."""
        self.progress(f"{name} ...")
        began = time.monotonic()
        numbers: dict[str, Any] = {}
        outcome = Outcome.OK
        try:
            done = await check()
            if isinstance(done, str):
                outcome, message = Outcome.SKIPPED, done
            else:
                message, numbers = done
        except UsherError as error:
            outcome, message = Outcome.FAILED, str(error)
        self._add(name, outcome, message, took_s=time.monotonic() - began, numbers=numbers)
        return outcome is Outcome.OK

    def _add(self, name: str, outcome: Outcome, message: str, **more: Any) -> None:
        self.results.append(Result(name=name, outcome=outcome, message=message, **more))
        self.progress(f"{name}: {outcome}: {message}")

    def _skip(self, why: str, *names: str) -> None:
        for name in names:
            self._add(name, Outcome.SKIPPED, why)

    def _skip_rest(self, why: str) -> None:
        names = ("single dispatch", "agent seen in the room", "idempotency")
        many = f"{self.options.concurrency} at once"
        self._skip(why, *names, many, "counters", "cancelled, nothing left")

    async def _reachable(self) -> Done:
        alive = await self.deployment.ask("GET", "/healthz")
        if alive.status != 200:
            raise Went(f"GET /healthz: {alive.status}")
        ready = await self.deployment.ask("GET", "/readyz")
        missing = ", ".join(ready.body.get("not_ready", []))
        if ready.status != 200 or missing:
            raise Went(f"GET /readyz: {ready.body.get('status', ready.status)}: {missing}")
        listed = await self.deployment.knows_key()
        if listed.status != 200:
            raise Went(f"GET /api/v1/dispatches: {listed.status}: {listed.detail}")
        took_ms = alive.took_s * 1000
        return f"ready, answers in {took_ms:.0f} ms", {"answer_ms": round(took_ms, 1)}

    async def _ask(self, *, room: str = "", once: str = "") -> Session:
        room = room or fresh_room()
        self._rooms.add(room)  # before the request: its answer may get lost
        self._asked += 1
        session = await ask_for(self.deployment, agent=self.options.agent, room=room, once=once)
        self._answered += 1
        self._sessions.setdefault(session.dispatch_id, session)
        return session

    async def _one(self) -> Done:
        self._single = await self._ask()
        record = await joined(self.deployment, self._single, within_s=self.options.deadline_s)
        answer_ms, join_ms = self._single.answer_s * 1000, record["time_to_join_ms"]
        if self._single.answer_s > ANSWER_S:
            raise Went(f"the answer took {answer_ms:.0f} ms; at most {ANSWER_S:.0f} s is promised")
        return (
            f"answered in {answer_ms:.0f} ms, agent joined after {join_ms} ms",
            {"answer_ms": round(answer_ms, 1), "time_to_join_ms": join_ms},
        )

    async def _seen(self, stack: contextlib.AsyncExitStack) -> Done:
        assert self._single is not None
        joining = in_room(self._single.server_url, self._single.token)
        self._participant = await stack.enter_async_context(joining)
        took_s = await self._participant.wait(bool, within_s=self.options.deadline_s)
        if took_s is None:
            raise Went("a participant in the room sees no agent, and the record says joined")
        if not await self._participant.stay(_exactly_one, for_s=_SETTLED_S):
            raise Went(f"not exactly one agent in the room: {self._participant.agents()}")
        [seen] = self._participant.agents()
        record = (await self.deployment.record(self._single.dispatch_id)).body
        if record.get("agent_identity") != seen:
            raise Went(f"in the room is {seen}; the record names {record.get('agent_identity')}")
        return f"a participant sees exactly one agent, {seen}", {"agent_identity": seen}

    async def _idempotency(self) -> Done:
        assert self._single is not None
        again = await self._ask(room=self._single.room)
        if again.dispatch_id != self._single.dispatch_id:
            raise Went(f"the same room again made a second dispatch, {again.dispatch_id}")
        key, room = fresh_room(), fresh_room()
        first = await self._ask(room=room, once=key)
        second = await self._ask(room=room, once=key)
        if (second.dispatch_id, second.identity) != (first.dispatch_id, first.identity):
            raise Went("the same request with the same Idempotency-Key was answered otherwise")
        other = await self.deployment.send(self._single.room, once=key)
        if other.status != 409:
            raise Went(f"another request with that Idempotency-Key: {other.status}, not 409")
        await joined(self.deployment, first, within_s=self.options.deadline_s)
        if self._participant and not await self._participant.stay(_exactly_one, for_s=_SETTLED_S):
            raise Went(f"asking again brought another agent: {self._participant.agents()}")
        return "asking again made no second dispatch and no second agent", {}

    async def _read_counters(self) -> None:
        if self._single is not None:
            self._before = await self.counters.read(self._single.dispatch_id)

    async def _stress(self) -> Done:
        self._records, done = await at_once(
            self.deployment,
            self._ask,
            count=self.options.concurrency,
            deadline_s=self.options.deadline_s,
            progress=self.progress,
        )
        if isinstance(done, str):
            raise Went(done)
        return done

    async def _counted(self) -> Done | str:
        if self._single is None or self._before is None:
            return self.counters.why_not or "there was no session before"
        if not self._records:
            return "no session has joined"
        after = await self.counters.read(self._single.dispatch_id)
        if after is None or after.source != self._before.source:
            return self.counters.why_not or "they cannot be read any more"
        rose = rises(self._before, after)
        expected = Counter(str(record.get("container") or "") for record in self._records)
        if short := too_little(rose, expected):
            raise Went(f"accepted jobs by {after.source} rose by less: {short}")
        told = ", ".join(f"{name} +{rose[name]}" for name in sorted(expected))
        return (
            f"accepted jobs by {after.source}: {told}, for {sum(expected.values())} sessions",
            {"source": after.source, "rose": rose, "sessions": dict(expected)},
        )

    async def _ended(self) -> Done:
        for session in self._sessions.values():
            answer = await self.deployment.cancel(session.dispatch_id)
            if answer.status != 200:
                raise Went(f"DELETE {session.dispatch_id}: {answer.status}: {answer.detail}")
        if self._participant and await self._participant.wait(_none, within_s=_LEAVE_S) is None:
            raise Went(f"{_LEAVE_S:.0f} s after the cancel an agent is still in the room")
        limit = asyncio.Semaphore(_JOINERS)
        others = [each for each in self._sessions.values() if each is not self._single]
        empty = await asyncio.gather(*(_is_left(session, limit) for session in others))
        left = [s.room for s, is_left in zip(others, empty, strict=True) if not is_left]
        if left:
            raise Went(f"agents are left in {len(left)} room(s): {', '.join(left[:_TOLD])}")
        if live := await self._live():
            raise Went(f"{len(live)} dispatch(es) have not ended: {', '.join(live[:_TOLD])}")
        return f"{len(self._sessions)} dispatches cancelled, their agents have left", {}

    async def _live(self) -> list[str]:
        """Return the ids of the run's dispatches that have not ended."""
        newest = await self.deployment.newest(pages=2 + len(self._rooms) // 50)
        return [
            str(record["dispatch_id"])
            for record in newest
            if record["room_name"] in self._rooms and record["state"] in _LIVE
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
                    await asyncio.sleep(pause_s if self._asked > self._answered else 0)
                    for dispatch_id in await self._live():
                        await self.deployment.cancel(dispatch_id)
                left = await self._live()
        if left:
            message = f"rooms {PREFIX}... may be left: {', '.join(left[:_TOLD])}"
            self._add("clean-up", Outcome.FAILED, message)


def _exactly_one(agents: list[str]) -> bool:
    return len(agents) == 1


def _none(agents: list[str]) -> bool:
    return not agents


async def _is_left(session: Session, limit: asyncio.Semaphore) -> bool:
    """Return whether the agents of a cancelled session have left its room."""
    async with limit, in_room(session.server_url, session.token) as participant:
        # LiveKit tells a participant at its connect which others are there.
        return await participant.wait(_none, within_s=_LEAVE_S) is not None


@contextlib.asynccontextmanager
async def open_test(
    url: str, key: str, operator_auth: str, options: Options, progress: Progress
) -> AsyncIterator[SelfTest]:
    """Open a self-test of the deployment at `url`."""
    async with Deployment(url, key) as deployment:
        yield SelfTest(
            deployment=deployment,
            counters=Counters(deployment, operator_auth),
            options=options,
            progress=progress,
        )
