"""Handmade evidence of a round of the fault campaign, for tests of its oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.faults.campaign.evidence import read_evidence
from tests.faults.campaign.journal import Event
from tests.faults.campaign.oracle import RoundResult, judge
from tests.faults.campaign.plan import Behaviour, Kind, Person

ROOM, DISPATCH = "room", "dsp_1"
END = 100.0
WORD_EVERY_S = 0.7
SIGNALS = {
    "DRAIN": "TERM",
    "FOREIGN": "DISPATCH",
    "GARBAGE": "503 []",
    "REFUSES": "OOM",
    **dict.fromkeys(("FLOOD", "REDISPATCHES", "OVERSIZE"), "BURST"),
}


class Story:
    """A round with one room, told event by event; it begins at 0 s and ends at 100 s."""

    def __init__(self) -> None:
        self.driver: list[Event] = [{"t": 0.0, "event": "begins"}]
        self.agents: list[Event] = []
        self.neighbours: list[Event] = []

    def visit(
        self,
        *,
        person: Person = Person.STAYS,
        agent: Behaviour = Behaviour.PLAIN,
        starts_in_s: float = 0.0,
    ) -> Story:
        more = {"person": person, "agent": agent, "starts_in_s": starts_in_s}
        self.driver.append({"t": 0.5, "event": "visit", "room": ROOM, **more})
        return self

    def accepted(
        self, at: float, *, took_s: float = 0.01, status: int = 200, dispatch_id: str = DISPATCH
    ) -> Story:
        number = len(self.driver)
        self.driver += [
            {"t": at, "event": "asks", "room": ROOM, "ask": number},
            {
                "t": at + took_s,
                "event": "answered",
                "room": ROOM,
                "ask": number,
                "status": status,
                "took_s": took_s,
                "dispatch_id": dispatch_id if status == 200 else "",
            },
        ]
        return self

    def person(
        self,
        since: float,
        until: float,
        *answers: tuple[str, float, float],
        who: str = "ann",
        back_after_s: float | None = None,
    ) -> Story:
        """Add a person in the room, with the agent that answers her, from when to when."""
        there = {"room": ROOM, "who": who}
        back = {} if back_after_s is None else {"back_after_s": back_after_s}
        self.driver.append({"t": since, "event": "present", **there, **back})
        self.driver.append({"t": until, "event": "absent", **there})
        for number in range(int((until - since) / WORD_EVERY_S) + 1):
            at = round(since + number * WORD_EVERY_S, 2)
            self.driver += [
                {"t": at, "event": "echo", **there, "agent": agent, "word": int(at * 100)}
                for agent, first, last in answers
                if since <= at < until and first <= at <= last
            ]
        return self

    def listed(self, at: float, *agents: str) -> Story:
        listed = {agent: int(at * 1000) for agent in agents}
        self.driver.append({"t": at, "event": "listed", "room": ROOM, "agents": listed})
        return self

    def unlisted(self, at: float) -> Story:
        """Add a list of the room that LiveKit does not answer."""
        self.driver.append({"t": at, "event": "listed", "room": ROOM, "agents": None})
        return self

    def starts(self, at: float, agent: str, *, pid: int) -> Story:
        common = {"t": at, "room": ROOM, "job": f"job of {agent}", "pid": pid}
        self.agents.append({**common, "event": "agent_starts", "agent": agent})
        return self

    def joined(self, at: float, agent: str, *, pid: int) -> Story:
        common = {"t": at, "room": ROOM, "job": f"job of {agent}", "pid": pid}
        self.starts(at, agent, pid=pid)
        self.agents.append({**common, "event": "agent_joined"})
        return self

    def left(self, at: float, agent: str, *, why: str = "the last person has left") -> Story:
        return self._agent(at, agent, "agent_left", why=why)

    def deletes_room(self, at: float, agent: str) -> Story:
        return self._agent(at, agent, "agent_deletes_room")

    def raises(self, at: float, agent: str) -> Story:
        self._agent(at, agent, "agent_raises")
        return self.left(at, agent, why="job crashed")

    def _agent(self, at: float, agent: str, event: str, **more: str) -> Story:
        self.agents.append({"t": at, "event": event, "job": f"job of {agent}", **more})
        return self

    def fault(
        self,
        at: float,
        kind: Kind,
        *pids: int,
        program: str = "it",
        room: str = "",
        until: float | None = None,
    ) -> Story:
        number = len(self.driver)
        self.driver.append(
            {
                "t": at,
                "event": "fault",
                "fault": number,
                "kind": str(kind),
                "program": program,
                "pids": list(pids),
                "room": room,
                "signal": SIGNALS.get(
                    kind.name, "STOP" if kind.name.startswith("FREEZE") else "KILL"
                ),
                "hold_s": 0.0,
            }
        )
        if until is not None:
            spoiled = 2 if kind is Kind.GARBAGE else 0
            over = {"fault": number, "spoiled": spoiled}
            self.driver.append({"t": until, "event": "fault_over", **over})
        return self

    def record(
        self,
        state: str,
        reason: str = "",
        *,
        ended_at: float = 90.0,
        deadline_at: float = END,
        agent: str = "",
        joined_at: float | None = None,
        asked_at: float | None = None,
        dispatch_id: str = DISPATCH,
    ) -> Story:
        """`asked_at` is when its last attempt began."""
        asked = (
            [] if asked_at is None else [{"at_ms": int(asked_at * 1000), "event": "dispatching"}]
        )
        joined = [] if joined_at is None else [{"at_ms": int(joined_at * 1000), "event": "joined"}]
        body = {
            "state": state,
            "failure_reason": reason or None,
            "agent_identity": agent or None,
            "deadline_at_ms": int(deadline_at * 1000),
            "timeline": [*asked, *joined, {"at_ms": int(ended_at * 1000), "event": state}],
        }
        return self._record(200, body, dispatch_id)

    def no_record(self) -> Story:
        return self._record(404, {}, DISPATCH)

    def _record(self, status: int, body: Mapping[str, Any], dispatch_id: str) -> Story:
        told = {"dispatch_id": dispatch_id, "status": status, "body": body}
        self.driver.append({"t": 95.0, "event": "record", **told})
        return self

    def final(self, *agents: str) -> Story:
        listed = dict.fromkeys(agents, 0)
        self.driver.append({"t": 99.0, "event": "final", "room": ROOM, "agents": listed})
        return self

    def neighbour(self, at: float, status: int, dispatch_id: str = "") -> Story:
        """Add a request of the other tenant, and its answer."""
        answer = {"status": status, "took_s": 0.01, "dispatch_id": dispatch_id}
        self.neighbours.append({"t": at, "event": "neighbour_answered", **answer})
        return self

    def neighbours_record(self, state: str, reason: str = "", *, dispatch_id: str) -> Story:
        record = {"dispatch_id": dispatch_id, "state": state, "reason": reason}
        self.driver.append({"t": 95.0, "event": "neighbour_record", **record})
        return self

    def exited(self, at: float, program: str, *, how: str = "exit status 1; not expected") -> Story:
        self.driver.append({"t": 99.0, "event": "exited", "at": at, "program": program, "how": how})
        return self

    def missing(self, *what: str) -> Story:
        """Add the end of all faults, with the parts that are still missing."""
        self.driver.append({"t": 99.5, "event": "healed", "missing": list(what), "took_s": 20.0})
        return self

    def gives_up_asking(self, at: float) -> Story:
        self.driver.append({"t": at, "event": "gave_up_asking", "room": ROOM, "who": "ann"})
        return self

    def judged(self) -> RoundResult:
        in_order = sorted(self.driver, key=lambda event: event["t"])
        in_order.append({"t": END, "event": "ends"})
        return judge(read_evidence(in_order, self.agents, self.neighbours))


def honest() -> Story:
    """Return a session with one agent, from its request until all people have left."""
    story = Story().accepted(1.0).person(1.5, 30.0, ("one", 1.6, 30.0))
    story.listed(1.2).listed(1.6, "one").joined(1.6, "one", pid=7).left(31.0, "one").listed(31.2)
    return story.final()


def found(result: RoundResult) -> list[str]:
    return [finding.what for finding in result.findings]
