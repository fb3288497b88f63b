"""Which LiveKit attributes are ours?

LiveKit hands a dispatch's attributes to the job, and a participant's to everybody in the room. Ours
leave the metadata to the client, unchanged: an agent finds in `ctx.job.metadata` what its caller
sent. (In LiveKit since protocol 1.50 / server 1.13, `AgentDispatch.attributes`.)
"""

from __future__ import annotations

from typing import Final

DISPATCH_ID: Final = "usher.dispatch_id"
GENERATION: Final = "usher.generation"
CLIENT_ID: Final = "usher.client_id"
CONTAINER: Final = "usher.container"
REQUEST_TYPE: Final = "usher.request_type"
REQUESTED_AT_MS: Final = "usher.requested_at_ms"
TRACEPARENT: Final = "usher.traceparent"  # W3C; only of a dispatch that is traced
AGENT_NAME: Final = "lk.agent_name"  # set by livekit-agents on every agent's participant

DELEGATED: Final = "delegated"  # the request type of what a token has LiveKit dispatch


def job_attributes(
    *,
    dispatch_id: str,
    generation: int,
    client_id: str,
    container: str,
    request_type: str,
    requested_at_ms: int,
    traceparent: str = "",
) -> dict[str, str]:
    """The attributes of a LiveKit dispatch, which reach its job."""
    attributes = {
        DISPATCH_ID: dispatch_id,
        GENERATION: str(generation),
        CLIENT_ID: client_id,
        CONTAINER: container,
        REQUEST_TYPE: request_type,
        REQUESTED_AT_MS: str(requested_at_ms),
    }
    return attributes | {TRACEPARENT: traceparent} if traceparent else attributes
