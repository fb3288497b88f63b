"""What a campaign has proved, for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .oracle import ANSWER_WITHIN_S, OVERLAP_ALLOWED_S
from .plan import Kind, Person
from .recovery import ANSWERS_AGAIN_S, CRASH, DEADLINE_S, LATE_S

_SHOWN_FINDINGS = 50
VERDICTS = (
    *("lost", "unanswered", "doubled", "unexplained", "ghost", "unended"),
    *("refused", "died", "unhealed"),
)
# What is lost, how the report calls it, and what is aimed at.
_LOSSES = {
    Kind.JOB: ("dead job process", "p50 2 s, p99 6 s"),
    Kind.AGENT: ("dead agent server", "p99 8 s"),
    CRASH: ("entry point that raises", ""),
    Kind.DRAIN: ("stopped agent server", ""),
    Kind.FREEZE_JOB: ("frozen job process", ""),
    Kind.FREEZE_AGENT: ("frozen agent server", ""),
}


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that is not below `share` of all; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * len(ordered) * 1000) // 1000) - 1))]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All rounds of all seeds together; a round is what `RoundResult.as_json` gives."""

    command: str
    rounds: Sequence[Mapping[str, Any]]

    def total(self, name: str) -> int:
        return sum(one[name] for one in self.rounds)

    def all(self, name: str) -> list[Any]:
        return [value for one in self.rounds for value in one[name]]

    def counts(self, name: str) -> Counter[str]:
        counted: Counter[str] = Counter()
        for one in self.rounds:
            counted.update(one[name])
        return counted

    def found(self, what: str) -> int:
        return sum(finding["what"] == what for finding in self.all("findings"))

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled, unexplained or left over, and no answer too late."""
        return not self.all("findings") and not self.all("slow_answers")

    def recoveries(self, *, other_online: bool, kind: str = "", of: str = "took_s") -> list[float]:
        """Seconds until the next agent was listed, or (`answered_s`) has answered."""
        return [
            recovery[of]
            for recovery in self.all("recoveries")
            if (recovery["other_server_online"] or not other_online)
            and (not kind or recovery["kind"] == kind)
            and recovery[of] is not None
        ]

    def returns(self, gap: str, *, undisturbed: bool = False) -> list[Mapping[str, Any]]:
        """The returns with that gap; an entry of `gaps`."""
        return [
            one
            for one in self.all("returns")
            if _gap(one) == gap and (one["undisturbed"] or not undisturbed)
        ]

    @property
    def gaps(self) -> list[str]:
        return sorted({_gap(one) for one in self.all("returns")}, key=lambda gap: (len(gap), gap))

    def as_json(self) -> str:
        """The figures without the samples behind them."""
        figures = {
            "command": self.command,
            "passed": self.passed,
            "seeds": sorted({one["seed"] for one in self.rounds}),
            "rounds": len(self.rounds),
            "sessions": self.total("sessions"),
            "accepted": self.total("accepted"),
            "kills": self.total("kills"),
            "freezes": self.total("freezes"),
            "drains": self.total("drains"),
            "foreign": self.total("foreign"),
            "refusals_of_redis": self.total("refusals"),
            "answers_spoiled": self.total("spoiled"),
            "bursts_of_the_neighbour": self.total("bursts"),
            "neighbours_sessions": self.total("neighbours_sessions"),
            "neighbours_answers": dict(sorted(self.counts("neighbours_answers").items())),
            **{what: self.found(what) for what in VERDICTS},
            "answers_over_1_s": len(self.all("slow_answers")),
            "people": dict(sorted(self.counts("people").items())),
            "behaviours": dict(sorted(self.counts("behaviours").items())),
            "faults": dict(sorted(self.counts("faults").items())),
            "endings": dict(sorted(self.counts("endings").items())),
            "answers": dict(sorted(self.counts("answers").items())),
            "answer_s": _spread(self.all("answer_s")),
            "join_s": _spread(self.all("joins_s")),
            "recovery_other_server_online_s": _spread(self.recoveries(other_online=True)),
            "recovery_all_s": _spread(self.recoveries(other_online=False)),
            "recovery_by_loss_s": {
                name: {
                    "listed": _spread(self.recoveries(other_online=True, kind=kind)),
                    "answered": _spread(
                        self.recoveries(other_online=True, kind=kind, of="answered_s")
                    ),
                }
                for kind, (name, _) in _LOSSES.items()
            },
            "returns_s": {
                gap: {
                    "undisturbed": _spread(_waits(self.returns(gap, undisturbed=True))),
                    "all": _spread(_waits(self.returns(gap))),
                    "never_answered": sum(not one["answered"] for one in self.returns(gap)),
                }
                for gap in self.gaps
            },
            "double_answers_s": _spread(self.all("double_answers_s")),
            "words_answered": self.total("words_answered"),
            "overlap_living_s": _spread(self.all("overlaps_s")),
            "overlap_listed_s": _spread(self.all("listed_overlaps_s")),
            "lasted_s": round(sum(one["lasted_s"] for one in self.rounds)),
            "findings": self.all("findings"),
        }
        return json.dumps(figures, indent=2) + "\n"

    def as_markdown(self) -> str:
        parts = [
            self._head(),
            self._figures(),
            self._recoveries(),
            self._returns(),
            self._faults(),
            self._findings(),
            _MEANING,
        ]
        return "\n".join(parts)

    def _head(self) -> str:
        verdict = "passed" if self.passed else "**failed**"
        seeds = ", ".join(str(seed) for seed in sorted({one["seed"] for one in self.rounds}))
        minutes = sum(one["lasted_s"] for one in self.rounds) / 60
        return (
            "# The fault campaign\n\n"
            f"Made by `{self.command}`; do not edit.\n\n"
            f"{self.total('sessions'):,} sessions, {self.total('kills')} kills and "
            f"{self.total('freezes')} freezes, {self.total('drains')} drains and "
            f"{self.total('foreign')} foreign dispatches, {self.total('refusals')} times a Redis "
            f"that answers errors, {self.total('spoiled')} answers of LiveKit's that were garbage, "
            f"{self.total('bursts')} bursts of a neighbour, "
            f"seeds {seeds}, {minutes:.0f} minutes: {verdict}.\n\n"
            f"Rounds by commit: {self._commits()}.\n"
        )

    def _commits(self) -> str:
        rounds = Counter(one.get("commit", "unknown") for one in self.rounds)
        return ", ".join(f"{commit} ({count})" for commit, count in rounds.items())

    def _figures(self) -> str:
        rows = [
            ("sessions accepted (2xx)", str(self.total("accepted"))),
            *((_NAMES[what], str(self.found(what))) for what in VERDICTS),
            (f"HTTP answers over {ANSWER_WITHIN_S:.0f} s", str(len(self.all("slow_answers")))),
            ("HTTP answer", _text(self.all("answer_s"))),
            ("time to join", _text(self.all("joins_s"))),
            (
                "recovery, another agent server online",
                _text(self.recoveries(other_online=True)),
            ),
            ("recovery, all", _text(self.recoveries(other_online=False))),
            ("two living agents in a room", _text(self.all("overlaps_s"), with_sum=True)),
            (
                "two listed agents, dead ones too",
                _text(self.all("listed_overlaps_s"), with_sum=True),
            ),
            (
                "the same words answered by two agents",
                _text(self.all("double_answers_s"), with_sum=True),
            ),
            ("words that an agent answered", str(self.total("words_answered"))),
            ("the driver's own longest delay", f"{self._worst_lag_s():.2f} s"),
        ]
        return _table(("what", "how much"), rows)

    def _recoveries(self) -> str:
        rows = [
            (
                name,
                _text(self.recoveries(other_online=True, kind=kind)),
                _text(self.recoveries(other_online=True, kind=kind, of="answered_s")),
                aim or "-",
            )
            for kind, (name, aim) in _LOSSES.items()
        ]
        head = ("lost, another agent server online", "until listed", "until it answered", "aim")
        return _table(head, rows)

    def _returns(self) -> str:
        rows = []
        for gap in self.gaps:
            every = self.returns(gap)
            rows.append(
                (
                    gap,
                    _text(_waits(self.returns(gap, undisturbed=True))),
                    _text(_waits(every)),
                    str(sum(not one["answered"] for one in every)),
                )
            )
        head = (
            "back again after",
            "until the first answer, no fault around",
            "all",
            "never answered",
        )
        return _table(head, rows)

    def _worst_lag_s(self) -> float:
        return max((one["worst_lag_s"] for one in self.rounds), default=0.0)

    def _faults(self) -> str:
        faults = [(name, str(count)) for name, count in sorted(self.counts("faults").items())]
        endings = [(name, str(count)) for name, count in sorted(self.counts("endings").items())]
        answers = [(_status(name), str(n)) for name, n in sorted(self.counts("answers").items())]
        theirs = self.counts("neighbours_answers").items()
        neighbour = [
            ("sessions accepted", str(self.total("neighbours_sessions"))),
            *((_status(name), str(n)) for name, n in sorted(theirs)),
        ]
        people = [(name, str(count)) for name, count in sorted(self.counts("people").items())]
        agents = [(name, str(count)) for name, count in sorted(self.counts("behaviours").items())]
        return "\n".join(
            [
                _table(("a person who", "sessions"), people),
                _table(("an agent that is, or", "sessions"), agents),
                _table(("fault", "times"), faults),
                _table(("how the dispatches ended", "times"), endings),
                _table(("how requests were answered", "times"), answers),
                _table(("how the neighbour was answered", "times"), neighbour),
            ]
        )

    def _findings(self) -> str:
        findings = self.all("findings")
        if not findings:
            return ""
        rows = [
            (one["what"], one["room"], one["dispatch_id"], f"{one['at']:.1f}", one["detail"])
            for one in findings[:_SHOWN_FINDINGS]
        ]
        return "## Findings\n\n" + _table(("what", "room", "dispatch", "at", "detail"), rows)


_NAMES = {
    "lost": "lost",
    "unanswered": "unanswered",
    "doubled": "doubled at rest",
    "unexplained": "unexplained",
    "ghost": "ghost agents",
    "unended": "unended",
    "refused": "people refused without need",
    "died": "processes that ended by themselves",
    "unhealed": "not healed at the end",
}

_MEANING = f"""\
## What the words mean

The oracle (`tests/faults/campaign/oracle.py`) imports nothing of the product. It judges by what
clients wrote down before asking and were answered, by the agents' own log, and by LiveKit's
participant list, looked at twice a second.

An agent **answers** when a word that a person writes comes back from it. Every person writes one
about every 0.7 s, and every 0.25 s while none is answered. An agent that is ending answers no more.

- **lost**: a person with a 2xx was in the room, and no agent answered for longer than the deadline
  ({DEADLINE_S:.0f} s, anew after each death of an agent, and longer by the time in which Redis
  refused to work: nothing can be said of a session then), and no `failed` or `cancelled` with a
  reason had said so; or a dispatch failed only after its deadline; or at the end the product does
  not know an accepted dispatch, or has it wait.
- **unanswered**: a person who had left, asked again and joined again was not answered within
  {ANSWERS_AGAIN_S:.0f} s (and the time that its agent takes by itself to start, and {LATE_S:.1f} s
  for a loaded machine), in a session that no fault can have touched; or a person was never
  answered although the record had said `joined`.
- **unended**: everybody has left, and at the end the product still says `joined` or `leaving`.
- **doubled at rest**: more than one living agent for longer than {OVERLAP_ALLOWED_S:.0f} s, or the
  same words answered by two for as long. Living: LiveKit lists it as ACTIVE, and neither its own
  log nor a kill says that it is gone. An agent that Usher has not dispatched counts.
- **unexplained**: an ending whose reason is missing, or that nothing that was done can have led to.
- **refused**: a person was answered 429 or 503 while Redis worked, or was never accepted for as
  long as a page waits. What another tenant does is no reason.
- **died**: a process ended that nobody had ended. **unhealed**: with all faults over, a process
  gave no sign of life for 20 s, or `/readyz` missed something.
- The **neighbour** is a second tenant with a LiveKit, an agent server and a key of its own. It asks
  and cancels, redispatches and sends oversize bodies, in bursts, far over its limits. None of that
  excuses anything that happens to the first tenant's sessions, and its own accepted sessions must
  end, with a reason, like everybody's.
- **garbage**: Usher's workers reach LiveKit through a gateway, which now and then answers a call,
  or all calls of a second, in LiveKit's place; in half of the cases LiveKit did what was asked.
- **ghost**: an agent left in the room of a dispatch that is over, at the end of the round.
- **recovery**: from the kill, freeze, failure or end of an agent under a person to the next agent
  in LiveKit's list, and to the first answer of another one, without the time that a program which
  starts slowly takes by itself. Another agent server counts as online when neither it nor LiveKit
  or Redis was hit around then.
- An answer is over 1 s when its client waited that long, not counting the time in which the driver
  itself was held up.
- A request without an answer or with a 503 was not accepted; its client asks again with the same
  room name.
"""


def _gap(one: Mapping[str, Any]) -> str:
    """How a return's gap is called in the report."""
    if one["person"] == Person.RETURNS:
        return "0 to 10 s"
    return f"{one['gap_s']:g} s"


def _waits(returns: Iterable[Mapping[str, Any]]) -> list[float]:
    return [one["waited_s"] for one in returns]


def _status(name: str) -> str:
    return "no answer (refused or reset)" if name == "none" else f"HTTP {name}"


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {
        "count": len(values),
        "p50": rounded(percentile(values, 0.5)),
        "p99": rounded(percentile(values, 0.99)),
        "max": rounded(max(values, default=None)),
        "sum": rounded(sum(values)),
    }


def _text(values: Sequence[float], *, with_sum: bool = False) -> str:
    if not values:
        return "never"
    p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
    text = f"{len(values)} times, p50 {p50:.3f} s, p99 {p99:.3f} s, longest {max(values):.3f} s"
    return f"{text}, together {sum(values):.1f} s" if with_sum else text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
