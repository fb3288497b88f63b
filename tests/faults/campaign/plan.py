"""The plan of a round: who comes when, which agent each gets, and what is done to which process,
server or tenant.

The same seed gives the same plan.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tests.faults.gateway import PASSING
from tests.faults.refusing_redis import Refusal

T = TypeVar("T")


class Kind(StrEnum):
    """What is done to which process, room or server, or by which tenant."""

    WEB_WORKER = "kill one gunicorn worker"
    WEB = "kill the gunicorn master"
    DISPATCH = "kill a dispatch worker"
    VERIFY = "kill the verify worker"
    BEAT = "kill beat"
    AGENT = "kill an agent server and its jobs"
    JOB = "kill the process of one job"
    REDIS = "kill Redis"
    LIVEKIT = "kill LiveKit"
    FREEZE_WORKER = "freeze a worker past its lease"
    FREEZE_AGENT = "freeze an agent server and its jobs past their leases"
    FREEZE_JOB = "freeze the process of one job past its lease"
    DRAIN = "stop an agent server by SIGTERM, its drain time shorter than its sessions"
    FOREIGN = "have LiveKit dispatch the same agent into a room past Usher"
    GARBAGE = "have a gateway answer garbage in LiveKit's place"
    REFUSES = "have Redis answer errors"
    FLOOD = "have a neighbour ask and cancel far over its limits"
    REDISPATCHES = "have a neighbour cancel and redispatch in a loop"
    OVERSIZE = "have a neighbour send oversize bodies"


# Shares. LiveKit and Redis take everybody down with them, so they are the rarer ones.
KILLS = {
    Kind.WEB_WORKER: 4,
    Kind.WEB: 3,
    Kind.DISPATCH: 6,
    Kind.VERIFY: 5,
    Kind.BEAT: 3,
    Kind.AGENT: 5,
    Kind.JOB: 4,
    Kind.REDIS: 2,
    Kind.LIVEKIT: 1,
}
FREEZES = {Kind.FREEZE_WORKER: 2, Kind.FREEZE_AGENT: 1, Kind.FREEZE_JOB: 1}
OTHERS = {Kind.DRAIN: 1, Kind.FOREIGN: 1}
NEIGHBOURS = {Kind.FLOOD: 1, Kind.REDISPATCHES: 1, Kind.OVERSIZE: 1}
ANSWERS = {Kind.GARBAGE: 3, Kind.REFUSES: 3, **NEIGHBOURS}
# What there is of a kind; a round has all of them in turn.
WAYS: dict[Kind, tuple[StrEnum, ...]] = {Kind.GARBAGE: PASSING, Kind.REFUSES: tuple(Refusal)}
_KILLS_PER_FREEZE = 8
_KILLS_PER_OTHER = 5
_KILLS_PER_ANSWER = 2
# The beginning of a round is free of faults: ordinary life must work by itself.
QUIET_SHARE = 0.2


class Behaviour(StrEnum):
    """What the agent program does in a session. All of them answer while they serve."""

    PLAIN = "plain"  # leaves half a second after its last person
    # The next three only for the first agent of a dispatch; the next one is plain.
    RAISES = "raises"  # so many seconds after it has met its person
    RAISES_EARLY = "raises before it connects"
    RETURNS_EARLY = "returns without connecting"
    LINGERS = "lingers"  # shuts its job down when its person leaves; that takes 3 s
    DELETES = "deletes its room"  # when its person leaves
    SLOW = "starts slowly"  # so many seconds before it connects
    SESSION = "AgentSession"  # livekit-agents' own: closes when its person leaves, and stays


class Person(StrEnum):
    """What a person does besides staying for a while and leaving."""

    STAYS = "stays"
    RELOADS = "reloads"  # leaves, asks again, and joins again, after one of `RELOAD_GAPS_S`
    RETURNS = "comes back"  # the same after any time up to 10 s
    TABS = "opens a second tab"  # another identity in the same room, for some seconds


RELOAD_GAPS_S = (0.0, 0.3, 1.0, 3.0, 10.0)
_RETURN_WITHIN_S = 10.0

# Shares of sessions, out of 100. An AgentSession listens to one person only, so a second tab has
# another agent.
SESSIONS = {
    (Person.STAYS, Behaviour.PLAIN): 45,
    (Person.STAYS, Behaviour.RAISES): 6,
    (Person.STAYS, Behaviour.RAISES_EARLY): 4,
    (Person.STAYS, Behaviour.RETURNS_EARLY): 3,
    (Person.STAYS, Behaviour.LINGERS): 2,
    (Person.STAYS, Behaviour.DELETES): 2,
    (Person.STAYS, Behaviour.SLOW): 4,
    (Person.STAYS, Behaviour.SESSION): 3,
    (Person.RELOADS, Behaviour.PLAIN): 5,
    (Person.RELOADS, Behaviour.LINGERS): 4,
    (Person.RELOADS, Behaviour.DELETES): 3,
    (Person.RELOADS, Behaviour.SLOW): 1,
    (Person.RELOADS, Behaviour.SESSION): 4,
    (Person.RETURNS, Behaviour.PLAIN): 3,
    (Person.RETURNS, Behaviour.LINGERS): 2,
    (Person.RETURNS, Behaviour.DELETES): 1,
    (Person.RETURNS, Behaviour.SESSION): 2,
    (Person.TABS, Behaviour.PLAIN): 3,
    (Person.TABS, Behaviour.LINGERS): 2,
    (Person.TABS, Behaviour.RAISES): 1,
}


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One person's session. `at_s` counts from the start of the round."""

    room: str
    at_s: float
    walks_in_after_s: float  # from the answer to joining the room
    stay_s: float  # with an agent that answers; where the person comes back, each time
    patient: bool  # waits for an agent before leaving
    comes: bool  # a few ask and never join
    person: Person = Person.STAYS
    gap_s: float = 0.0  # between leaving and asking again
    tab_after_s: float = 0.0  # from joining to the second tab
    agent: Behaviour = Behaviour.PLAIN
    agent_s: float = 0.0  # of an agent that raises after, or connects after, a time

    @property
    def starts_in_s(self) -> float:
        """How long each agent of this session takes by itself before it connects."""
        return self.agent_s if self.agent is Behaviour.SLOW else 0.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. `pick`, from 0 to 1, chooses among the processes or rooms of that kind."""

    at_s: float
    kind: Kind
    pick: float
    hold_s: float  # of a freeze, of errors and of garbage; garbage for 0 s is a single answer
    how: str = ""  # which garbage, or which error


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A round."""

    visits: tuple[Visit, ...]
    faults: tuple[Fault, ...]


def make_plan(
    *,
    seed: int,
    number: int,
    sessions: int,
    kills: int,
    per_s: float,
    stay_s: float = 8.0,
    only: tuple[Kind, ...] = (),
    agents: tuple[Behaviour, ...] = tuple(Behaviour),
    people: tuple[Person, ...] = tuple(Person),
    ways: tuple[str, ...] = (),
) -> Plan:
    """The plan of round `number`.

    `only` restricts the faults to these kinds, in equal shares; `agents` and `people` restrict the
    sessions, and `ways` garbage and errors of Redis's, to these.
    """
    dice = random.Random(f"usher campaign {seed} {number}")
    lasts_s = sessions / per_s
    arrivals = sorted(dice.uniform(0, lasts_s) for _ in range(sessions))
    wanted = {
        (person, agent): share
        for (person, agent), share in SESSIONS.items()
        if person in people and agent in agents
    }
    kinds_of_sessions = _shares(wanted, sessions)
    dice.shuffle(kinds_of_sessions)
    visits = tuple(
        _visit(f"campaign-{seed}-{number}-{index}", at_s, stay_s, person, agent, dice)
        for index, (at_s, (person, agent)) in enumerate(
            zip(arrivals, kinds_of_sessions, strict=True)
        )
    )
    if only:
        kinds = [only[index % len(only)] for index in range(kills)]
    else:
        kinds = _shares(KILLS, kills) + _shares(FREEZES, kills // _KILLS_PER_FREEZE)
        kinds += _shares(OTHERS, kills // _KILLS_PER_OTHER)
        kinds += _shares(ANSWERS, kills // _KILLS_PER_ANSWER)
    dice.shuffle(kinds)
    turns = {kind: _in_turn(names, ways, dice) for kind, names in WAYS.items()}
    # After the quiet beginning evenly but not regularly, until the last sessions have come.
    first_s = max(3.0, QUIET_SHARE * lasts_s)
    step_s = max(0.0, lasts_s + 2.0 - first_s) / max(1, len(kinds))
    faults = tuple(
        Fault(
            at_s=first_s + step_s * (index + dice.random()),
            kind=kind,
            pick=dice.random(),
            hold_s=_hold_s(kind, dice),
            how=next(turns[kind]) if kind in turns else "",
        )
        for index, kind in enumerate(kinds)
    )
    return Plan(visits=visits, faults=faults)


def _in_turn(
    names: tuple[StrEnum, ...], wanted: tuple[str, ...], dice: random.Random
) -> Iterator[str]:
    """Those that are wanted in an order of the dice, or all of them, again and again."""
    some = [name for name in names if name in wanted] or list(names)
    return itertools.cycle(dice.sample(some, len(some)))


def _visit(
    room: str, at_s: float, stay_s: float, person: Person, agent: Behaviour, dice: random.Random
) -> Visit:
    odd = (person, agent) != (Person.STAYS, Behaviour.PLAIN)
    stays_s = min(20.0, stay_s * (0.4 + dice.expovariate(1 / 0.6)))
    if person in (Person.RELOADS, Person.RETURNS):
        stays_s = max(3.0, stays_s / 2)
    gap_s = dice.choice(RELOAD_GAPS_S)
    if person is Person.RETURNS:
        gap_s = dice.uniform(0.0, _RETURN_WITHIN_S)
    agent_s = dice.uniform(0.5, 3.0) if agent is Behaviour.RAISES else dice.uniform(4.0, 8.0)
    return Visit(
        room=room,
        at_s=at_s,
        walks_in_after_s=dice.choice((0.0, 0.1, dice.uniform(0.0, 1.5))),
        stay_s=stays_s,
        # What is odd in a session shall be seen.
        patient=dice.random() < 0.75 or odd,
        comes=dice.random() < 0.94 or odd,
        person=person,
        gap_s=gap_s if person in (Person.RELOADS, Person.RETURNS) else 0.0,
        tab_after_s=dice.uniform(0.5, 3.0) if person is Person.TABS else 0.0,
        agent=agent,
        agent_s=agent_s if agent in (Behaviour.RAISES, Behaviour.SLOW) else 0.0,
    )


def _hold_s(kind: Kind, dice: random.Random) -> float:
    """Past the lease of an agent (2.5 s), or of a dispatch worker (12 s); of what answers wrongly
    a few seconds."""
    short_s, long_s = dice.uniform(4.0, 6.0), dice.uniform(13.0, 14.5)
    if kind is Kind.REFUSES:
        return dice.uniform(1.5, 4.0)
    if kind is Kind.GARBAGE:
        return dice.choice((0.0, dice.uniform(0.5, 2.5)))
    if kind in NEIGHBOURS:
        return 0.0
    return long_s if kind is Kind.FREEZE_WORKER and dice.random() < 0.5 else short_s


def _shares(weights: dict[T, int], count: int) -> list[T]:
    """`count` kinds in these proportions; every kind once before any is there twice too often."""
    chosen: dict[T, int] = dict.fromkeys(weights, 0)
    for _ in range(count):
        # The one furthest behind its share; the first of a kind before the second of another.
        behind = max(
            weights, key=lambda kind: (chosen[kind] == 0, weights[kind] / (chosen[kind] + 1))
        )
        chosen[behind] += 1
    return [kind for kind, times in chosen.items() for _ in range(times)]
