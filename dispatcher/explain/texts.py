"""The cause and the advice for each failure reason, in words.

`explain/explanation.py` puts them together. A test checks that every `FailureReason` and every
reason of the request filter has words here. `{agent}`, `{container}`, `{client}` and `{server}` are
filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import FailureReason

CLI: Final = "celery -A dispatcher dispatch"


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words for one reason; `headline` follows "Failed: " or "Waiting: "."""

    headline: str
    cause: str
    advice: str


# The request filter's own reasons (`worker_agent/decisions.py`), without "rejected: ".
REJECTED: Final[Mapping[str, Words]] = {
    "full": Words(
        headline="every slot is taken",
        cause="Every agent server for agent {agent} that could take the session had all of its "
        "slots taken.",
        advice=f"`{CLI} agents` shows slots and load. Add agent servers, or raise "
        "USHER_AGENT_SLOTS if theirs have CPU and memory left.",
    ),
    "wrong_container": Words(
        headline="the agent servers are in another container",
        cause="The client's sessions belong in container {container}, and the agent server that "
        "LiveKit asked runs in another one.",
        advice="Start an agent server with USHER_AGENT_CONTAINER={container}, or correct "
        "`container` of client {client}.",
    ),
    "wrong_client": Words(
        headline="the agent servers serve another client",
        cause="The agent server that LiveKit asked serves another client than {client} only.",
        advice="Start an agent server with USHER_AGENT_CLIENT_ID={client} (or without it, for "
        "every client); check that two clients with the same agent name do not share one LiveKit "
        "server.",
    ),
    "ledger_unavailable": Words(
        headline="the agent server could not reach Redis",
        cause="An agent server for agent {agent} was offered the job and refused it, because "
        "Redis did not answer its claim; without the claim it could have been the second agent.",
        advice="Look at REDIS_URL and the network of the agent server (its log names it), then at "
        f"Redis itself: `{CLI} doctor`.",
    ),
    "declined_by_program": Words(
        headline="the agent program declined the job",
        cause="The agent program itself turned the job down: its own on_request rejected it, or "
        "it called ctx.shutdown() before its agent had joined.",
        advice="Look into the log and the code of the program behind agent {agent}: it decides "
        "that, not Usher. An on_request that wants another agent server to be asked calls "
        "reject(terminate=False).",
    ),
    "processes_cannot_start": Words(
        headline="the agent server cannot start its processes",
        cause="The agent server that LiveKit asked for agent {agent} cannot start a process for a "
        "job, and takes none until it can.",
        advice="Read its log for 'error initializing process': an exception in the program's "
        "setup_fnc, a time-out of initialize_process_timeout, or too little memory.",
    ),
    "stale_generation": Words(
        headline="the offer came too late",
        cause="LiveKit offered a job of an attempt that had been given up already.",
        advice="Look at the load of LiveKit and of the agent servers: offers come late.",
    ),
    "second_job": Words(
        headline="another job has the session already",
        cause="LiveKit offered a second job for a session that another job had claimed.",
        advice="Nothing, if the session has its agent; else look for who else creates dispatches "
        "for agent {agent} in this room.",
    ),
    "dispatch_not_open": Words(
        headline="the session was no longer open",
        cause="The job was offered when its session had ended or been cancelled.",
        advice="Look at the timeline for who ended it.",
    ),
    "unknown_dispatch": Words(
        headline="Redis does not know the session",
        cause="The agent server asked Redis for the session, and there was no record of it.",
        advice="Check that dispatcher and agent servers use the same REDIS_URL, and whether Redis "
        f"has lost data: `{CLI} doctor`.",
    ),
    "room_served_by_another_dispatch": Words(
        headline="another session has the room",
        cause="The room is served by another dispatch by now.",
        advice=f"`{CLI} list` finds the dispatch that serves the room.",
    ),
    "not_dispatched_by_usher": Words(
        headline="the job was not Usher's",
        cause="The job carried no dispatch id of Usher's.",
        advice="Look for who else creates dispatches for agent {agent}.",
    ),
}

FAILURES: Final[Mapping[str, Words]] = {
    FailureReason.NO_AGENT_ONLINE: Words(
        headline="no agent server for agent {agent} is online",
        cause="No agent server for agent {agent}{in_container} was registered at LiveKit and "
        "reporting itself: none runs, it hangs, it cannot reach LiveKit or Redis, the agent "
        "name is wrong, or those that run are of another deployment (LIVEKIT_AGENT_DEPLOYMENT).",
        advice=f"`{CLI} agents` lists who is online. Start an agent server (python -m "
        "worker_agent) or read its log; if one is there under another name, correct the name in "
        "the request or the client's agent names.",
    ),
    FailureReason.NO_CAPACITY: Words(
        headline="no agent server has room",
        cause="Agent servers for agent {agent} were online, and none had a free slot for this "
        "session.",
        advice=f"`{CLI} agents` shows slots and load. Add agent servers; raise USHER_AGENT_SLOTS "
        "if theirs have CPU and memory left; look for a client that takes all of them.",
    ),
    FailureReason.REJECTED: Words(
        headline="the agent servers refused the job",
        cause="An agent server for agent {agent} was offered the job and refused it.",
        advice="Read the agent server's log: each reject has a line with this dispatch id and the "
        "reason.",
    ),
    FailureReason.LIVEKIT_UNREACHABLE: Words(
        headline="LiveKit does not answer",
        cause="The LiveKit server of client {client} did not answer: it is down, hangs, is "
        "overloaded, or the network between is broken.",
        advice=f"`{CLI} doctor` asks every client's LiveKit. Check the server and the URL; once "
        "it is back, agent servers register again by themselves within some 10 s.",
    ),
    FailureReason.LIVEKIT_REFUSED: Words(
        headline="LiveKit refused the request",
        cause="The LiveKit server of client {client} answered and refused for good: as a rule the "
        "API key or secret is wrong, or the URL is another server's.",
        advice="Correct this client's LiveKit URL, key and secret (docs/settings.md, "
        f"docs/clients.md); `{CLI} doctor` says whether they work.",
    ),
    FailureReason.JOIN_TIMEOUT: Words(
        headline="the agent did not join in time",
        cause="LiveKit took the request, and no agent of {agent} was in the room in time.",
        advice="Read LiveKit's log for \"no servers available\" and the agent server's log for "
        "the room; look whether both have CPU left, and whether the agent server is registered at "
        "this client's LiveKit server.",
    ),
    FailureReason.AGENT_LOST: Words(
        headline="its agents keep dying",
        cause="Several agents of this session in a row died, or raised an exception, soon after "
        "they had joined.",
        advice="Read the agent server's log for the job's exception or the kernel's for an "
        "out-of-memory kill; correct the agent program before you dispatch again.",
    ),
    FailureReason.AGENT_CRASHED: Words(
        headline="its agent program crashes before it joins",
        cause="Agent servers for agent {agent} took the job, and each time the agent program "
        "raised an exception, returned without connecting or died before its agent was in the "
        "room.",
        advice="Read the agent server's log for the job: the exception's text and traceback are "
        "there. Correct the agent program, then dispatch again.",
    ),
    FailureReason.NOBODY_CAME: Words(
        headline="nobody came into the room",
        cause="The agent was there and waited, and no person ever joined the room; so it was "
        "sent away. The fault is on the caller's side: the page was closed, the token was never "
        "used, or the person could not connect to LiveKit.",
        advice="Check on the caller's side: does it get the answer and join that room with the "
        "token? Can it reach LiveKit's URL and UDP ports?",
    ),
    FailureReason.DISPATCHER_UNAVAILABLE: Words(
        headline="no dispatch worker took it up",
        cause="The session stood in the queue until its time was up: every dispatch worker was "
        "away, frozen or too busy.",
        advice=f"`{CLI} doctor` says whether workers live and how long the queue is. Start the "
        "dispatch worker (Procfile), read its log, or start more of them.",
    ),
    FailureReason.CLIENT_REMOVED: Words(
        headline="its client is not configured any more",
        cause="Client {client} was taken out of the file of clients while the session was under "
        "way, so that its LiveKit server could not be asked for an agent.",
        advice="Add the client again if that was a mistake; to take one out of use, disable it "
        "first (docs/clients.md): what runs is looked after to its end then.",
    ),
    FailureReason.SUPERSEDED: Words(
        headline="another dispatch serves the room",
        cause="Redis had lost this record or never had it; when it came back the room had another "
        "dispatch already, so this one was closed.",
        advice="Nothing for this one: look at the dispatch that the record names. If Redis lost "
        "data, give it an append-only file (docs/redis.md).",
    ),
    FailureReason.CANCELLED_BY_CLIENT: Words(
        headline="it was cancelled by hand",
        cause="It was cancelled on request: by its client's DELETE, or by an operator.",
        advice="Nothing; if nobody wanted that, look for who sends DELETE with this client's key.",
    ),
    # An attempt's outcome, which becomes the dispatch's reason if the deadline comes just then.
    "assignment_timeout": Words(
        headline="LiveKit did not assign the job",
        cause="An agent server accepted the job, and LiveKit did not give it to it in time.",
        advice="Look at the load and the log of LiveKit, and at the network between it and the "
        "agent server.",
    ),
    "its worker is gone": Words(
        headline="the dispatch worker died on the way",
        cause="The dispatch worker that had this session in hand was killed, frozen or cut off, "
        "and there was no time left for another attempt.",
        advice="Read the dispatch worker's log and the kernel's (out of memory?); "
        f"`{CLI} doctor` says whether workers live now.",
    ),
    "the agent fell silent": Words(
        headline="the agent died",
        cause="The agent was in the room and fell silent: its job process or its agent server was "
        "killed, frozen or cut off; no other one joined in time.",
        advice="Read the agent server's log for the job's exception or the kernel's for an "
        "out-of-memory kill.",
    ),
}

_UNKNOWN: Final = Words(
    headline="{reason}",
    cause="The record gives the reason {reason!r}, which this release has no words for.",
    advice="Look at the attempts and the timeline, and into the logs for this dispatch id.",
)


def words_for(reason: str) -> Words:
    """Return the words for a failure reason as records have it, `rejected: ...` too."""
    code, _, detail = reason.partition(": ")
    if code == FailureReason.REJECTED and detail in REJECTED:
        return REJECTED[detail]
    return FAILURES.get(code) or REJECTED.get(code) or _UNKNOWN
