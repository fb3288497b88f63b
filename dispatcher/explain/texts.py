"""The headline and the advice for each failure reason, in words.

The cause is the record's own message (`domain/failure_reasons.py`); `explain/explanation.py` puts
them together. A test checks that every `FailureReason` and every reason of the request filter has
words here. `{agent}`, `{in_container}`, `{client}` and fields of the `{record}` are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import FailureReason

CLI: Final = "celery -A dispatcher dispatch"


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words for one reason or state; a reason's headline follows "Failed: " or "Waiting: "."""

    headline: str
    cause: str = "{message}"
    advice: str


# The request filter's own reasons (`worker_agent/decisions.py`), without "rejected: ".
REJECTED: Final[Mapping[str, Words]] = {
    "full": Words(
        headline="every slot is taken",
        advice=f"`{CLI} agents` shows slots and load. Add agent servers, or raise "
        "USHER_AGENT_SLOTS if theirs have CPU and memory left.",
    ),
    "wrong_container": Words(
        headline="no agent server that LiveKit asked is in container {record.container}",
        advice="Start an agent server with USHER_AGENT_CONTAINER={record.container}, or correct "
        "`container` of client {client}.",
    ),
    "wrong_client": Words(
        headline="the agent servers serve another client",
        advice="Start an agent server with USHER_AGENT_CLIENT_ID={client} (or without it, for "
        "every client); check that two clients with the same agent name do not share one LiveKit "
        "server.",
    ),
    "ledger_unavailable": Words(
        headline="the agent server could not reach Redis",
        advice="Redis did not answer its claim, without which it could have been the second "
        "agent. Look at REDIS_URL and the network of the agent server (its log names it), then at "
        f"Redis itself: `{CLI} doctor`.",
    ),
    "declined_by_program": Words(
        headline="the agent program declined the job",
        advice="Look into the log and the code of the program behind agent {agent}, which decides "
        "that, not Usher: its own on_request rejected the job, or it called ctx.shutdown() before "
        "its agent had joined. An on_request that wants another agent server to be asked calls "
        "reject(terminate=False).",
    ),
    "processes_cannot_start": Words(
        headline="the agent server cannot start its processes",
        advice="Read its log for 'error initializing process': an exception in the program's "
        "setup_fnc, a time-out of initialize_process_timeout, or too little memory. It takes no "
        "job until it can.",
    ),
    "stale_generation": Words(
        headline="LiveKit offered the job after its attempt had been given up",
        advice="Look at the load of LiveKit and of the agent servers: offers come late.",
    ),
    "second_job": Words(
        headline="another job has the session already",
        advice="Nothing, if the session has its agent; else look for who else creates dispatches "
        "for agent {agent} in this room.",
    ),
    "dispatch_not_open": Words(
        headline="the session had ended or been cancelled when the job was offered",
        advice="Look at the timeline for who ended it.",
    ),
    "unknown_dispatch": Words(
        headline="Redis does not know the session",
        advice="Check that dispatcher and agent servers use the same REDIS_URL, and whether Redis "
        f"has lost data: `{CLI} doctor`.",
    ),
    "room_served_by_another_dispatch": Words(
        headline="another session has the room",
        advice=f"`{CLI} list` finds the dispatch that serves the room.",
    ),
    "not_dispatched_by_usher": Words(
        headline="the job carried no dispatch id of Usher's",
        advice="Look for who else creates dispatches for agent {agent}.",
    ),
}

FAILURES: Final[Mapping[str, Words]] = {
    FailureReason.NO_AGENT_ONLINE: Words(
        headline="no agent server for agent {agent}{in_container} is online",
        advice=f"`{CLI} agents` lists who is online. Start an agent server (python -m "
        "worker_agent). One that runs and is not listed hangs or cannot reach LiveKit or Redis: "
        "read its log. One that is listed has another agent name (correct it in the request or "
        "the client's agent names) or is of another deployment (LIVEKIT_AGENT_DEPLOYMENT).",
    ),
    FailureReason.NO_CAPACITY: Words(
        headline="no agent server has room",
        advice=f"`{CLI} agents` shows slots and load. Add agent servers; raise USHER_AGENT_SLOTS "
        "if theirs have CPU and memory left; look for a client that takes all of them.",
    ),
    FailureReason.REJECTED: Words(
        headline="the agent servers refused the job",
        advice="Read the agent server's log: each reject has a line with this dispatch id and the "
        "reason.",
    ),
    FailureReason.LIVEKIT_UNREACHABLE: Words(
        headline="LiveKit does not answer",
        advice="Check the LiveKit server of client {client}, its URL and the network between: as "
        f"a rule it is down, hangs or is overloaded. `{CLI} doctor` asks every client's LiveKit. "
        "Once it is back, agent servers register again by themselves within some 10 s.",
    ),
    FailureReason.LIVEKIT_REFUSED: Words(
        headline="LiveKit refused the request",
        advice="As a rule the API key or secret is wrong, or the URL is another server's: correct "
        "those of client {client} (docs/settings.md, docs/clients.md); "
        f"`{CLI} doctor` says whether they work.",
    ),
    FailureReason.JOIN_TIMEOUT: Words(
        headline="the agent did not join in time",
        advice="Read LiveKit's log for \"no servers available\" and the agent server's log for "
        "the room; look whether both have CPU left, and whether the agent server is registered at "
        "this client's LiveKit server.",
    ),
    FailureReason.AGENT_LOST: Words(
        headline="its agents keep dying",
        advice="Read the agent server's log for the job's exception or the kernel's for an "
        "out-of-memory kill; correct the agent program before you dispatch again.",
    ),
    FailureReason.AGENT_CRASHED: Words(
        headline="its agent program crashes before it joins",
        advice="Read the agent server's log for the job: the exception's text and traceback are "
        "there. Correct the agent program, then dispatch again.",
    ),
    FailureReason.NOBODY_CAME: Words(
        headline="nobody came into the room",
        advice="Check on the caller's side: was the page closed, or the token never used? Does "
        "the caller get the answer and join that room with the token? Can it reach LiveKit's URL "
        "and UDP ports?",
    ),
    FailureReason.DISPATCHER_UNAVAILABLE: Words(
        headline="no dispatch worker took it up",
        advice=f"`{CLI} doctor` says whether workers live and how long the queue is. Start the "
        "dispatch worker (Procfile), read its log, or start more of them.",
    ),
    FailureReason.CLIENT_REMOVED: Words(
        headline="its client is not configured any more",
        advice="The client was taken out of the file of clients while the session was under way. "
        "Add it again if that was a mistake; to take one out of use, disable it first "
        "(docs/clients.md): what runs is looked after to its end then.",
    ),
    FailureReason.SUPERSEDED: Words(
        headline="another dispatch serves the room",
        advice="Nothing for this one: when Redis had its record again, the room had the dispatch "
        "that the cause names. If Redis lost data, give it an append-only file (docs/redis.md).",
    ),
    FailureReason.CANCELLED_BY_CLIENT: Words(
        headline="it was cancelled by hand",
        advice="Nothing; if nobody wanted that, look for who sends DELETE with this client's key.",
    ),
    # An attempt's outcome, which becomes the dispatch's reason if the deadline comes just then.
    "assignment_timeout": Words(
        headline="an agent server accepted the job, and LiveKit did not assign it in time",
        advice="Look at the load and the log of LiveKit, and at the network between it and the "
        "agent server.",
    ),
    "its worker is gone": Words(
        headline="the dispatch worker died on the way",
        advice="It was killed, frozen or cut off: read its log and the kernel's (out of memory?); "
        f"`{CLI} doctor` says whether workers live now.",
    ),
    "the agent fell silent": Words(
        headline="the agent died",
        advice="Read the agent server's log for the job's exception or the kernel's for an "
        "out-of-memory kill.",
    ),
}

_UNKNOWN: Final = Words(
    headline="{record.failure_reason}",
    advice="Look at the attempts and the timeline, and into the logs for this dispatch id.",
)


def words_for(reason: str) -> Words:
    """Return the words for a failure reason as records have it, `rejected: ...` too."""
    code, _, detail = reason.partition(": ")
    if code == FailureReason.REJECTED and detail in REJECTED:
        return REJECTED[detail]
    return FAILURES.get(code) or REJECTED.get(code) or _UNKNOWN
