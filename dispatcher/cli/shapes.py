"""The JSON that --json prints. These shapes are stable; docs/cli.md has them.

None has what a client has put into a session (its agent's metadata).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from dispatcher.domain.models import AgentServerReport, Dispatch
from dispatcher.explain.stages import stages

_SUMMARY: Final = (
    *("dispatch_id", "client_id", "room_name", "agent_name", "deployment", "state", "generation"),
    *("created_at_ms", "requested_at_ms", "deadline_at_ms", "updated_at_ms"),
    *("container", "agent_container", "agent_identity", "joined_at_ms", "time_to_join_ms"),
    *("failure_reason", "failure_message"),
)
_RECORD: Final = (
    *_SUMMARY,
    *("livekit_dispatch_id", "job_id", "agent_server_id", "losses", "person_seen", "clearing"),
    *("attempts_dropped", "timeline_dropped", "read_at_ms"),
)


def summary(dispatch: Dispatch) -> dict[str, Any]:
    """Return a dispatch as `list` has it."""
    return {name: getattr(dispatch, name) for name in _SUMMARY}


def record(dispatch: Dispatch) -> dict[str, Any]:
    """Return a dispatch with attempts, timeline and stages."""
    return {
        **{name: getattr(dispatch, name) for name in _RECORD},
        "attempts": [asdict(attempt) for attempt in dispatch.attempts],
        "timeline": [asdict(event) for event in dispatch.timeline],
        "stages": [asdict(stage) for stage in stages(dispatch)],
    }


def agent_server(report: AgentServerReport) -> dict[str, Any]:
    """Return an agent server's report, with the values derived from it."""
    return {**asdict(report), "online": report.online, "free_slots": report.free_slots}
