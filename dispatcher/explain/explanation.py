"""Explain in plain words why a session has no agent, or why it took so long.

Pure: from the record to what an operator reads at 3 a.m., on the command line and the dashboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.timing import DISPATCHING_LEASE_S, Timings, is_starting
from dispatcher.explain.incidents import duration, incidents, is_slow_start, seconds
from dispatcher.explain.texts import CLI, Words, words_for

# So many incidents are told in the cause; all of them are in the evidence.
_TOLD: Final = 3

# The words of a state; `{words}` are those of the reason that the record gives, and `_values` has
# what else is filled in.
_FOLLOW: Final = f"Look again in a second, or follow it: `{CLI} watch {{record.dispatch_id}}`."
_ASK_DOCTOR: Final = f"`{CLI} doctor` asks every client's LiveKit and says whether workers live."

_QUEUED_LONG: Final = Words(
    headline="Queued for {since}",
    cause="No dispatch worker has taken it up, and a few milliseconds are usual: the workers are "
    "away, frozen or busy, or its wake-up was lost and the sweeper is about to find it.",
    advice=f"`{CLI} doctor` says whether workers and sweeper live and how long the queue is.",
)
_DISPATCHING_LOST: Final = Words(
    headline="Dispatching for {since}: its worker is lost",
    cause="The dispatch worker that has it in hand was killed or hangs; another one takes it over "
    "now.",
    advice=_ASK_DOCTOR,
)
_STARTING: Final = Words(
    headline="Accepted {since} ago: the agent is still starting",
    cause="Job {record.job_id} of agent server {record.agent_server_id} is alive and has not "
    "connected to the room yet; it has {left} left.",
    advice="If this is usual: have the program load models in its setup_fnc, keep more idle "
    "processes (USHER_AGENT_IDLE_PROCESSES), or raise the client's deadline_s.",
)
_STATES: Final[Mapping[State, Words]] = {
    State.QUEUED: Words(
        headline="Queued for {since}",
        cause="A dispatch worker takes it up any moment.",
        advice="Look again in a second.",
    ),
    State.DISPATCHING: Words(
        headline="Dispatching for {since}: LiveKit is being asked",
        cause="A dispatch worker asks the LiveKit of client {client}; more than a second means "
        "that LiveKit answers slowly or not at all (up to three tries).",
        advice=f"Look again in a second. {_ASK_DOCTOR}",
    ),
    State.DISPATCHED: Words(
        headline="Dispatched {since} ago: nobody has been offered the job yet",
        cause="LiveKit has taken the request and offers the job within some 0.25 s; what is not "
        "offered within {offer_timeout} has been dropped, and is asked for again.",
        advice=_FOLLOW,
    ),
    State.OFFERED: Words(
        headline="Offered, and refused {since} ago",
        cause="An agent server has refused the job ({refusal}); LiveKit asks the next one.",
        advice=_FOLLOW,
    ),
    State.ACCEPTED: Words(
        headline="Accepted {since} ago: the agent is on its way",
        cause="Agent server {record.agent_server_id} has accepted job {record.job_id}; its agent "
        "has not been seen in the room yet. After {verify_timeout} it is given up and replaced.",
        advice=_FOLLOW,
    ),
    State.JOINED: Words(
        headline="Joined: the agent is in the room{after}",
        cause="{on_the_way}",
        advice="Nothing is to be done. Without sound in the room look into the log of agent server "
        "{server} for job {job}.",
    ),
    State.LEAVING: Words(
        headline="Leaving: the session is over, and its agent is still in the room",
        cause="Its agent answers no more{why}. It leaves when its program has finished, when the "
        "room closes, or when the room is asked for again. {on_the_way}",
        advice="Nothing is to be done: a caller who asks for the room again gets another agent.",
    ),
    State.ENDED: Words(
        headline="Ended: {served}",
        cause="{over}{why}. {on_the_way}",
        advice="Nothing is to be done.",
    ),
    State.WAITING: Words(
        headline="Waiting: {words.headline}; {left} left",
        cause="{words.cause}",
        advice="{words.advice} It goes on by itself as soon as it can, and fails with this reason "
        "at its deadline.",
    ),
    State.FAILED: Words(
        headline="Failed: {words.headline}",
        cause="{words.cause}",
        advice="{words.advice} If people are still in the room: "
        f"`{CLI} redispatch {{record.dispatch_id}}`.",
    ),
    State.CANCELLED: Words(
        headline="Cancelled: {words.headline}",
        cause="{words.cause}{clearing}",
        advice="{words.advice}",
    ),
    State.DELEGATED: Words(
        headline="Delegated: LiveKit itself brings the agent when the person joins",
        cause="Redis did not answer when the session was asked for, so the participant's token "
        "carries the agent, and nobody knows yet what LiveKit has made of it.",
        advice="It is looked into within seconds now that Redis answers. Find out why Redis was "
        f"away: `{CLI} doctor`.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A dispatch explained: a line, the cause, what to do next, and what shows the cause."""

    headline: str
    cause: str
    advice: str
    evidence: tuple[str, ...] = ()


def explain(dispatch: Dispatch, timings: Timings) -> Explanation:
    """Explain what became of a dispatch, and the true cause.

    `timings` are the workers' time-outs, which the sentences name.
    """
    evidence = incidents(dispatch, timings)
    values = _values(dispatch, timings, evidence)
    values["words"] = _filled(words_for(dispatch.failure_reason), values)
    words = _filled(_words(dispatch, timings), values)
    return Explanation(**vars(words), evidence=evidence)


def explain_unknown(dispatch_id: str, timings: Timings) -> Explanation:
    """Explain that there is no record with that id."""
    return Explanation(
        headline=f"Unknown: there is no dispatch {dispatch_id!r}",
        cause=f"A record is kept for {duration(timings.retention_s)} after its end "
        "(USHER_RETENTION_S), so this one ended before that; or the id is mistyped or of another "
        "deployment; or its request was refused (4xx, 429, 503) and made no record; or Redis has "
        "lost it and nobody remembered it.",
        advice=f"`{CLI} list --since 1d` shows what there is; `{CLI} doctor` says whether Redis "
        "has lost data. Who was refused has the reason in the answer.",
    )


def explain_parked(dispatch_id: str, reason: str) -> Explanation:
    """Explain that a record was parked: no worker works on it any more."""
    return Explanation(
        headline=f"Parked: the record of dispatch {dispatch_id!r} cannot be read",
        cause=f"Its record in Redis is damaged or of a foreign release ({reason}), so every look "
        "at it failed; it was taken out of every list, and nobody works on it.",
        advice="The session has no agent from us: have its client ask again, for the same room. "
        "Keep the record for whoever looks into it (docs/redis.md, "
        f"`redis-cli HGETALL usher:dispatch:{dispatch_id}`), and find out who wrote it.",
        evidence=(f"usher:parked has: {reason}",),
    )


def _words(dispatch: Dispatch, timings: Timings) -> Words:
    """Choose the words for a record's state, and for how long it has lasted."""
    since_ms = _since_ms(dispatch)
    if dispatch.state is State.QUEUED and is_slow_start(since_ms, timings):
        return _QUEUED_LONG
    if dispatch.state is State.DISPATCHING and since_ms >= DISPATCHING_LEASE_S * 1000:
        return _DISPATCHING_LOST
    return _STARTING if is_starting(dispatch) else _STATES[dispatch.state]


def _values(dispatch: Dispatch, timings: Timings, evidence: tuple[str, ...]) -> dict[str, object]:
    """Return what the words of states and reasons name."""
    last = dispatch.timeline[-1] if dispatch.timeline else None
    reason = last.detail.get("reason", "") if last else ""
    took = dispatch.time_to_join_ms
    served = "nobody needs an agent any more"
    if dispatch.joined_at_ms is not None or dispatch.agent_identity:
        served = "the session was served and is over"
    left = last is not None and last.event == "agent_left"
    clearing = " Workers still see to it that no agent of it is left."
    return {
        "record": dispatch,
        "agent": repr(dispatch.agent_name),
        "client": repr(dispatch.client_id),
        "in_container": f" in container {dispatch.container}" if dispatch.container else "",
        "message": _as_sentence(dispatch.failure_message or "the record gives no other reason"),
        "server": dispatch.agent_server_id or "(unknown)",
        "job": dispatch.job_id or "(unknown)",
        "since": seconds(_since_ms(dispatch)),
        "left": seconds(max(0.0, dispatch.remaining_s * 1000)),
        "after": "" if took is None else f", {seconds(took)} after it was asked for",
        "why": f" ({reason})" if reason else "",
        "served": served,
        "over": "The agent's session has ended" if left else "The session is over",
        "refusal": dispatch.attempt.reason or "no reason",
        "clearing": clearing if dispatch.clearing else "",
        "offer_timeout": _offer_timeout(timings),
        "verify_timeout": duration(timings.verify_timeout_s),
        "on_the_way": _on_the_way(evidence),
    }


def _filled(words: Words, values: Mapping[str, object]) -> Words:
    return Words(**{name: text.format(**values) for name, text in vars(words).items()})


def _as_sentence(message: str) -> str:
    return f"{message[0].upper()}{message[1:].rstrip('.')}."


def _since_ms(dispatch: Dispatch) -> int:
    return max(0, dispatch.read_at_ms - dispatch.updated_at_ms)


def _on_the_way(evidence: tuple[str, ...]) -> str:
    if not evidence:
        return "Nothing went wrong."
    more = f" ({len(evidence) - _TOLD} more below.)" if len(evidence) > _TOLD else ""
    return "On the way: " + " ".join(evidence[:_TOLD]) + more


def _offer_timeout(timings: Timings) -> str:
    told = duration(timings.offer_timeout_s)
    if timings.own_load_offer_timeout_s == timings.offer_timeout_s:
        return told
    own_load = duration(timings.own_load_offer_timeout_s)
    return f"{told} ({own_load} where the agent servers have a load report of their own)"
