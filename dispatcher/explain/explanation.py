"""Explain in plain words why a session has no agent, or why it took so long.

Pure: from the record to what an operator reads at 3 a.m., on the command line and the dashboard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.timing import DISPATCHING_LEASE_S, Timings, is_starting
from dispatcher.explain.incidents import duration, is_slow_start, seconds, troubles
from dispatcher.explain.texts import CLI, Words, words_for

# So many incidents are told in the cause; all of them are in the evidence.
_TOLD: Final = 3
_WITH_A_REASON: Final = (State.FAILED, State.CANCELLED, State.WAITING)


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
    words = _BY_STATE[dispatch.state](dispatch, timings)
    evidence = troubles(dispatch, timings)
    if dispatch.state in _WITH_A_REASON and dispatch.failure_message:
        evidence = (f"The record says: {dispatch.failure_message}.", *evidence)
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


def _filled(text: str, dispatch: Dispatch) -> str:
    container = dispatch.container or "(any)"
    return text.format(
        agent=repr(dispatch.agent_name),
        container=container,
        in_container=f" in container {container}" if dispatch.container else "",
        client=repr(dispatch.client_id),
        reason=dispatch.failure_reason,
    )


def _words(dispatch: Dispatch) -> Words:
    words = words_for(dispatch.failure_reason)
    return Words(
        headline=_filled(words.headline, dispatch),
        cause=_filled(words.cause, dispatch),
        advice=_filled(words.advice, dispatch),
    )


def _failed(dispatch: Dispatch, timings: Timings) -> Words:
    words = _words(dispatch)
    return Words(
        headline=f"Failed: {words.headline}",
        cause=words.cause,
        advice=f"{words.advice} If people are still in the room: "
        f"`{CLI} redispatch {dispatch.dispatch_id}`.",
    )


def _cancelled(dispatch: Dispatch, timings: Timings) -> Words:
    words = _words(dispatch)
    left = " Workers still see to it that no agent of it is left." if dispatch.clearing else ""
    return Words(
        headline=f"Cancelled: {words.headline}",
        cause=words.cause + left,
        advice=words.advice,
    )


def _on_the_way(dispatch: Dispatch, timings: Timings) -> str:
    told = troubles(dispatch, timings)
    if not told:
        return "Nothing went wrong."
    more = f" ({len(told) - _TOLD} more below.)" if len(told) > _TOLD else ""
    return "On the way: " + " ".join(told[:_TOLD]) + more


def _joined(dispatch: Dispatch, timings: Timings) -> Words:
    took = dispatch.time_to_join_ms
    after = f", {seconds(took)} after it was asked for" if took is not None else ""
    return Words(
        headline=f"Joined: the agent is in the room{after}",
        cause=_on_the_way(dispatch, timings),
        advice="Nothing is to be done. Without sound in the room look into the log of agent server "
        f"{dispatch.agent_server_id or '(unknown)'} for job {dispatch.job_id or '(unknown)'}.",
    )


def _leaving(dispatch: Dispatch, timings: Timings) -> Words:
    reason = dispatch.timeline[-1].detail.get("reason", "") if dispatch.timeline else ""
    return Words(
        headline="Leaving: the session is over, and its agent is still in the room",
        cause=f"Its agent answers no more{f' ({reason})' if reason else ''}. It leaves when its "
        "program has finished, when the room closes, or when the room is asked for again. "
        f"{_on_the_way(dispatch, timings)}",
        advice="Nothing is to be done: a caller who asks for the room again gets another agent.",
    )


def _ended(dispatch: Dispatch, timings: Timings) -> Words:
    last = dispatch.timeline[-1] if dispatch.timeline else None
    reason = last.detail.get("reason", "") if last else ""
    served = dispatch.joined_at_ms is not None or dispatch.agent_identity != ""
    left = last is not None and last.event == "agent_left"
    cause = "The agent's session has ended" if left else "The session is over"
    return Words(
        headline="Ended: the session was served and is over"
        if served
        else "Ended: nobody needs an agent any more",
        cause=f"{cause}{f' ({reason})' if reason else ''}. {_on_the_way(dispatch, timings)}",
        advice="Nothing is to be done.",
    )


def _waiting(dispatch: Dispatch, timings: Timings) -> Words:
    words = _words(dispatch)
    left_ms = max(0.0, dispatch.remaining_s * 1000)
    return Words(
        headline=f"Waiting: {words.headline}; {seconds(left_ms)} left",
        cause=words.cause,
        advice=f"{words.advice} It goes on by itself as soon as it can, and fails with this reason "
        "at its deadline.",
    )


def _since_ms(dispatch: Dispatch) -> int:
    return max(0, dispatch.read_at_ms - dispatch.updated_at_ms)


def _queued(dispatch: Dispatch, timings: Timings) -> Words:
    since_ms = _since_ms(dispatch)
    late = is_slow_start(since_ms, timings)
    return Words(
        headline=f"Queued for {seconds(since_ms)}",
        cause="No dispatch worker has taken it up, and a few milliseconds are usual: the workers "
        "are away, frozen or busy, or its wake-up was lost and the sweeper is about to find it."
        if late
        else "A dispatch worker takes it up any moment.",
        advice=f"`{CLI} doctor` says whether workers and sweeper live and how long the queue is."
        if late
        else "Look again in a second.",
    )


def _dispatching(dispatch: Dispatch, timings: Timings) -> Words:
    since_ms = _since_ms(dispatch)
    gone = since_ms >= DISPATCHING_LEASE_S * 1000
    return Words(
        headline=f"Dispatching for {seconds(since_ms)}: LiveKit is being asked",
        cause="The dispatch worker that has it in hand was killed or hangs; another one takes it "
        "over now."
        if gone
        else f"A dispatch worker asks the LiveKit of client {dispatch.client_id!r}; more than a "
        "second means that LiveKit answers slowly or not at all (up to three tries).",
        advice=f"`{CLI} doctor` asks every client's LiveKit and says whether workers live."
        if gone or is_slow_start(since_ms, timings)
        else "Look again in a second.",
    )


def _starting(dispatch: Dispatch, timings: Timings) -> Words:
    left_ms = max(0.0, dispatch.remaining_s * 1000)
    return Words(
        headline=f"Accepted {seconds(_since_ms(dispatch))} ago: the agent is still starting",
        cause=f"Job {dispatch.job_id} of agent server {dispatch.agent_server_id} is alive and has "
        f"not connected to the room yet; it has {seconds(left_ms)} left.",
        advice="If this is usual: have the program load models in its setup_fnc, keep more idle "
        "processes (USHER_AGENT_IDLE_PROCESSES), or raise the client's deadline_s.",
    )


def _offer_timeout(timings: Timings) -> str:
    told = duration(timings.offer_timeout_s)
    if timings.own_load_offer_timeout_s == timings.offer_timeout_s:
        return told
    own_load = duration(timings.own_load_offer_timeout_s)
    return f"{told} ({own_load} where the agent servers have a load report of their own)"


def _in_flight(dispatch: Dispatch, timings: Timings) -> Words:
    if is_starting(dispatch):
        return _starting(dispatch, timings)
    since = seconds(_since_ms(dispatch))
    headline, cause = {
        State.DISPATCHED: (
            f"Dispatched {since} ago: nobody has been offered the job yet",
            "LiveKit has taken the request and offers the job within some 0.25 s; what is not "
            f"offered within {_offer_timeout(timings)} has been dropped, and is asked for again.",
        ),
        State.OFFERED: (
            f"Offered, and refused {since} ago",
            f"An agent server has refused the job ({dispatch.attempt.reason or 'no reason'}); "
            "LiveKit asks the next one.",
        ),
        State.ACCEPTED: (
            f"Accepted {since} ago: the agent is on its way",
            f"Agent server {dispatch.agent_server_id} has accepted job {dispatch.job_id}; its "
            f"agent has not been seen in the room yet. After {duration(timings.verify_timeout_s)} "
            "it is given up and replaced.",
        ),
    }[dispatch.state]
    return Words(
        headline=headline,
        cause=cause,
        advice=f"Look again in a second, or follow it: `{CLI} watch {dispatch.dispatch_id}`.",
    )


def _delegated(dispatch: Dispatch, timings: Timings) -> Words:
    return Words(
        headline="Delegated: LiveKit itself brings the agent when the person joins",
        cause="Redis did not answer when the session was asked for, so the participant's token "
        "carries the agent, and nobody knows yet what LiveKit has made of it.",
        advice=f"It is looked into within seconds now that Redis answers. Find out why Redis was "
        f"away: `{CLI} doctor`.",
    )


_BY_STATE: Final[Mapping[State, Callable[[Dispatch, Timings], Words]]] = {
    State.QUEUED: _queued,
    State.DISPATCHING: _dispatching,
    State.DISPATCHED: _in_flight,
    State.OFFERED: _in_flight,
    State.ACCEPTED: _in_flight,
    State.JOINED: _joined,
    State.LEAVING: _leaving,
    State.ENDED: _ended,
    State.WAITING: _waiting,
    State.FAILED: _failed,
    State.CANCELLED: _cancelled,
    State.DELEGATED: _delegated,
}
