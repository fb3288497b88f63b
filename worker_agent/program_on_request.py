"""Ask the program's own `on_request` first.

Its accept passes through our filter: the job is claimed only when the program wants it, so there is
no claim to give back when it does not. Its `reject()` is final, as it is for LiveKit; with
`reject(terminate=False)` the next agent server is asked.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from livekit.agents import AssignmentTimeoutError, JobRequest
from livekit.agents.job import JobAcceptArguments

from worker_agent.decisions import read_offer
from worker_agent.request_filter import RequestFilter

OnRequest = Callable[[JobRequest], Awaitable[None]]


class NotGranted(AssignmentTimeoutError):
    """The program has accepted a job that it does not get: our filter has refused it.

    To the program it is what livekit-agents raises when LiveKit gives the job to another server.
    """


async def ask_program(own: OnRequest, request_filter: RequestFilter, request: JobRequest) -> None:
    """Ask the program; what it raises is raised here, once LiveKit and the ledger have answers."""
    asked = _Asked(request, request_filter)
    try:
        await own(JobRequest(job=request.job, on_reject=asked.reject, on_accept=asked.accept))
    except NotGranted:
        pass  # a program need not expect that
    finally:
        if not asked.answered:  # livekit-agents takes that as "ask another server", too
            await asked.reject(terminate=False)


class _Asked:
    """One offer, between the program's answer and LiveKit."""

    def __init__(self, request: JobRequest, request_filter: RequestFilter) -> None:
        self._request = request
        self._filter = request_filter
        self._offered_at = time.monotonic()
        self.answered = False

    async def reject(self, terminate: bool) -> None:
        self.answered = True
        await self._request.reject(terminate=terminate)
        await self._filter.declined(read_offer(self._request.job), final=terminate)

    async def accept(self, wanted: JobAcceptArguments) -> None:
        """Claim the job, and accept it as the program wants it; our attributes are added."""
        self.answered = True
        granted = False

        async def accept(ours: JobAcceptArguments) -> None:
            nonlocal granted
            await self._request.accept(
                name=wanted.name,
                identity=wanted.identity,
                metadata=wanted.metadata,
                attributes={**(wanted.attributes or {}), **(ours.attributes or {})},
            )
            granted = True

        async def reject(terminate: bool) -> None:
            await self._request.reject(terminate=terminate)

        request = JobRequest(job=self._request.job, on_reject=reject, on_accept=accept)
        await self._filter(request, offered_at=self._offered_at)
        if not granted:
            raise NotGranted
