"""What is to happen in a round? The same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to which process."""

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
_KILLS_PER_FREEZE = 8


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One person's session. `at_s` counts from the start of the round."""

    room: str
    at_s: float
    walks_in_after_s: float  # from the answer to joining the room
    stay_s: float  # with an agent
    patient: bool  # waits for an agent before leaving
    comes: bool  # a few ask and never join


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kill or freeze. `pick`, from 0 to 1, chooses among the processes of that kind."""

    at_s: float
    kind: Kind
    pick: float
    hold_s: float  # of a freeze


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
) -> Plan:
    """The plan of round `number`; `only` restricts the faults to these kinds, in equal shares."""
    dice = random.Random(f"usher campaign {seed} {number}")
    lasts_s = sessions / per_s
    arrivals = sorted(dice.uniform(0, lasts_s) for _ in range(sessions))
    visits = tuple(
        Visit(
            room=f"campaign-{seed}-{number}-{index}",
            at_s=at_s,
            walks_in_after_s=dice.choice((0.0, 0.1, dice.uniform(0.0, 1.5))),
            stay_s=min(20.0, stay_s * (0.4 + dice.expovariate(1 / 0.6))),
            patient=dice.random() < 0.85,
            comes=dice.random() < 0.97,
        )
        for index, at_s in enumerate(arrivals)
    )
    if only:
        kinds = [only[index % len(only)] for index in range(kills)]
    else:
        kinds = _shares(KILLS, kills) + _shares(FREEZES, kills // _KILLS_PER_FREEZE)
    dice.shuffle(kinds)
    # From the first sessions on, evenly but not regularly, until the last ones have come.
    first_s, step_s = 3.0, (lasts_s - 1.0) / max(1, len(kinds))
    faults = tuple(
        Fault(
            at_s=first_s + step_s * (index + dice.random()),
            kind=kind,
            pick=dice.random(),
            hold_s=_hold_s(kind, dice),
        )
        for index, kind in enumerate(kinds)
    )
    return Plan(visits=visits, faults=faults)


def _hold_s(kind: Kind, dice: random.Random) -> float:
    """Past the lease of an agent (2.5 s), or of a dispatch worker (12 s)."""
    short_s, long_s = dice.uniform(4.0, 6.0), dice.uniform(13.0, 14.5)
    return long_s if kind is Kind.FREEZE_WORKER and dice.random() < 0.5 else short_s


def _shares(weights: dict[Kind, int], count: int) -> list[Kind]:
    """`count` kinds in these proportions; every kind once before any is there twice too often."""
    chosen: dict[Kind, int] = dict.fromkeys(weights, 0)
    for _ in range(count):
        # Who is furthest behind its share; the first of a kind goes before the second of another.
        behind = max(
            weights, key=lambda kind: (chosen[kind] == 0, weights[kind] / (chosen[kind] + 1))
        )
        chosen[behind] += 1
    return [kind for kind, times in chosen.items() for _ in range(times)]
