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
AGENT_NAME: Final = "lk.agent_name"  # set by livekit-agents on every agent's participant
