"""Usher's attributes of a LiveKit dispatch, and LiveKit's own agent name.

LiveKit hands a dispatch's attributes to the job, and a participant's attributes to all participants
of the room. Because Usher uses attributes, the metadata is the client's alone: an agent finds in
`ctx.job.metadata` what its caller sent. (LiveKit has `AgentDispatch.attributes` since protocol
1.50, server 1.13.)
"""

from __future__ import annotations

from typing import Final

from dispatcher.domain.models import Dispatch, NewDispatch

DISPATCH_ID: Final = "usher.dispatch_id"
GENERATION: Final = "usher.generation"
CLIENT_ID: Final = "usher.client_id"
CONTAINER: Final = "usher.container"
REQUEST_TYPE: Final = "usher.request_type"
REQUESTED_AT_MS: Final = "usher.requested_at_ms"
TRACEPARENT: Final = "usher.traceparent"  # W3C; only of a dispatch that is traced
AGENT_NAME: Final = "lk.agent_name"  # set by livekit-agents on every agent's participant

DELEGATED: Final = "delegated"  # request type of a dispatch that LiveKit makes from a token


def job_attributes(
    dispatch: Dispatch | NewDispatch,
    *,
    request_type: str,
    requested_at_ms: int,
    traceparent: str = "",
) -> dict[str, str]:
    """Return the attributes of a LiveKit dispatch; without `traceparent` its trace is the record's.

    LiveKit passes them to the dispatch's job.
    """
    attributes = {
        DISPATCH_ID: dispatch.dispatch_id,
        GENERATION: str(dispatch.generation),
        CLIENT_ID: dispatch.client_id,
        CONTAINER: dispatch.container,
        REQUEST_TYPE: request_type,
        REQUESTED_AT_MS: str(requested_at_ms),
    }
    traceparent = traceparent or dispatch.traceparent
    return attributes | {TRACEPARENT: traceparent} if traceparent else attributes
