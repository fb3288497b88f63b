"""Offer a job to an agent server as LiveKit does, and answer for LiveKit.

For livekit-agents 1.8 (1.8.9, worker.py `AgentServer._handle_availability`, `_answer_availability`,
`_handle_assignment`, `_queue_msg`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/worker.py). It takes jobs
only from its connection to LiveKit. What it says there about a job that Usher has placed is
answered here: an accept with the assignment and a token, as LiveKit's own job tokens are
(livekit-server 1.13.5, protocol `agent/token.go`). So the load, draining, `on_request`, the process
pool and `active_jobs` are those of any job.

Guard: with other names the agent server reports that it takes no such jobs, and LiveKit is asked.
Remove when `AgentServer` takes a job from its program, and asks `on_request` about it.
"""

from __future__ import annotations

import time
from typing import Final

from livekit.agents import AgentServer
from livekit.protocol import agent

from dispatcher.domain.job_attributes import AGENT_NAME
from dispatcher.livekit.jwt import signed
from worker_agent.livekit_workarounds import unknown_release

_NAMES: Final = (
    "_handle_availability",
    "_handle_assignment",
    "_queue_msg",
    "_permissions",
    "_api_key",
    "_api_secret",
)
_TOKEN_TTL_S: Final = 3600  # LiveKit's
_ENDED: Final = frozenset({agent.JobStatus.JS_SUCCESS, agent.JobStatus.JS_FAILED})


class PlacedJobs:
    """The jobs of one agent server that LiveKit knows nothing of; belongs to its event loop."""

    def __init__(self, server: AgentServer) -> None:
        self._server = server
        self._jobs: dict[str, agent.Job] = {}
        self.possible = all(hasattr(server, name) for name in _NAMES)
        if self.possible:
            self._to_livekit = server._queue_msg
            vars(server)["_queue_msg"] = self._say
        else:
            consequence = "its agent servers take jobs from LiveKit alone"
            unknown_release.warn("livekit-agents", consequence)

    def offer(self, job: agent.Job) -> None:
        """Have the agent server asked whether it takes `job`, and start it if so."""
        self._jobs[job.id] = job
        self._server._handle_availability(agent.AvailabilityRequest(job=job))

    async def _say(self, message: agent.WorkerMessage) -> None:
        """Send what the agent server says to LiveKit, except about these jobs."""
        match message.WhichOneof("message"):
            case "availability" if message.availability.job_id in self._jobs:
                self._answer(message.availability)
            case "update_job" if message.update_job.job_id in self._jobs:
                if message.update_job.status in _ENDED:
                    del self._jobs[message.update_job.job_id]
            case "migrate_job":
                others = [each for each in message.migrate_job.job_ids if each not in self._jobs]
                if others:
                    request = agent.MigrateJobRequest(job_ids=others)
                    await self._to_livekit(agent.WorkerMessage(migrate_job=request))
            case _:
                await self._to_livekit(message)

    def _answer(self, answer: agent.AvailabilityResponse) -> None:
        if not answer.available:
            del self._jobs[answer.job_id]
            return
        job = self._jobs[answer.job_id]
        token = self._token(job, answer)
        self._server._handle_assignment(agent.JobAssignment(job=job, token=token))

    def _token(self, job: agent.Job, answer: agent.AvailabilityResponse) -> str:
        """Return a token with which the job's agent joins its room."""
        server, may, now = self._server, self._server._permissions, int(time.time())
        identity = answer.participant_identity or f"agent-{job.id}"
        video: dict[str, object] = {
            "roomJoin": True,
            "agent": True,
            "room": job.room.name,
            "canPublish": may.can_publish,
            "canSubscribe": may.can_subscribe,
            "canPublishData": may.can_publish_data,
            "canUpdateOwnMetadata": may.can_update_metadata,
            "canSubscribeMetrics": False,
        }
        claims: dict[str, object] = {
            "iss": server._api_key,
            "sub": identity,
            "identity": identity,
            "iat": now,
            "nbf": now,
            "exp": now + _TOKEN_TTL_S,
            "kind": "agent",
            "name": answer.participant_name,
            "metadata": answer.participant_metadata,
            "attributes": {**answer.participant_attributes, AGENT_NAME: job.agent_name},
            "video": video | ({"hidden": True} if may.hidden else {}),
        }
        secret = server._api_secret
        return signed({name: value for name, value in claims.items() if value != ""}, secret)
