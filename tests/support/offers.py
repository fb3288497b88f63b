"""Job offers to an agent server, as livekit-agents' own request objects, with their answers."""

from __future__ import annotations

from typing import Any

from livekit.agents import AssignmentTimeoutError, JobRequest
from livekit.agents.job import JobAcceptArguments
from livekit.protocol import agent
from livekit.protocol import models as protocol

from tests.support.values import AGENT_NAME
from worker_agent.request_filter import AgentServerIdentity

ACCEPT, REJECT, REJECT_EVERYWHERE = "accept", "reject here", "reject everywhere"


def identity(**changes: Any) -> AgentServerIdentity:
    values: dict[str, Any] = {"container": "box-1", "client_id": "", "slots": 2}
    return AgentServerIdentity(
        agent_server_id="server-1", agent_name=AGENT_NAME, **(values | changes)
    )


class Offered:
    """A job as livekit-agents hands it over, and the answers to it."""

    def __init__(self, job_id: str = "AJ_1", *, times_out: bool = False, **changes: str) -> None:
        attributes = {
            "usher.dispatch_id": "dsp_1",
            "usher.generation": "1",
            "usher.client_id": "acme",
            "usher.container": "",
            "usher.request_type": "dispatch",
        } | {f"usher.{name}": value for name, value in changes.items()}
        job = agent.Job(
            id=job_id,
            room=protocol.Room(name="room-1", num_participants=3),
            agent_name=AGENT_NAME,
            attributes={name: value for name, value in attributes.items() if value},
        )
        self.answers: list[str] = []
        self.accepted_with: JobAcceptArguments | None = None
        self._times_out = times_out
        self.request = JobRequest(job=job, on_reject=self._reject, on_accept=self._accept)

    async def _reject(self, terminate: bool) -> None:
        self.answers.append(REJECT_EVERYWHERE if terminate else REJECT)

    async def _accept(self, arguments: JobAcceptArguments) -> None:
        self.answers.append(ACCEPT)
        self.accepted_with = arguments
        if self._times_out:
            raise AssignmentTimeoutError
