"""Call LiveKit's server API: rooms, participants, agent dispatches.

No other module calls it. Answers become values of ours (`domain/rooms.py`). This module never
repeats a call, and livekit-api's own failover is off: `livekit/retry.py` repeats requests for an
agent, and no other call. Every server has connections and a circuit breaker of its own
(`livekit/transport.py`), so a server that hangs delays only its own clients.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from google.protobuf.json_format import MessageToJson
from livekit import api
from livekit.protocol.agent import Job, JobType
from livekit.protocol.models import ParticipantInfo

from dispatcher.clients.models import LiveKitCredentials
from dispatcher.domain.job_attributes import AGENT_NAME, DISPATCH_ID, GENERATION, job_attributes
from dispatcher.domain.models import Dispatch
from dispatcher.domain.rooms import AgentParticipant, RoomDispatch, RoomView
from dispatcher.errors import LiveKitError
from dispatcher.livekit.jwt import signed
from dispatcher.livekit.transport import LiveKitServer
from dispatcher.observability import tracing

# A token for our calls is reused for `_TOKEN_S`, and is valid as long as livekit-api's own, because
# LiveKit's clock may be ahead of ours. The tokens of `_ROOMS` rooms are cached.
_TOKEN_S: Final = 60
_TOKEN_TTL_S: Final = 6 * 3600
_ROOMS: Final = 256

# LiveKit says after 10 ms (measured) that it has lost a room.
LOST_ROOM_ANSWERS_WITHIN_S: Final = 0.5

# In the list of agents of a room whose agent Usher places itself; no agent has this name.
PLACED_BY_USHER: Final = "placed-by-usher"

# The kinds of participants that an agent is there for (livekit-agents' DEFAULT_PARTICIPANT_KINDS).
PEOPLE: Final = frozenset(
    {ParticipantInfo.STANDARD, ParticipantInfo.SIP, ParticipantInfo.CONNECTOR}
)
_JOINING: Final = frozenset({ParticipantInfo.JOINING, ParticipantInfo.JOINED})


def _agent(participant: ParticipantInfo) -> AgentParticipant:
    return AgentParticipant(
        identity=participant.identity,
        agent_name=participant.attributes.get(AGENT_NAME, ""),
        joined_at_ms=participant.joined_at_ms,
        dispatch_id=participant.attributes.get(DISPATCH_ID, ""),
        generation=_optional_int(participant.attributes.get(GENERATION, "")),
    )


def _job_attributes(dispatch: Dispatch, asking: tracing.Span) -> dict[str, str]:
    """Return the attributes of the job; the agent's spans become parts of `asking`."""
    return job_attributes(
        dispatch,
        request_type="dispatch" if dispatch.generation == 1 else "redispatch",
        requested_at_ms=dispatch.requested_at_ms,
        traceparent=tracing.traceparent(asking),
    )


def _optional_int(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


class LiveKitClient:
    """A client for one LiveKit server and one key, over the process's connections to that server.

    Every method raises `PermanentLiveKitError` or `TransientLiveKitError`.
    """

    def __init__(self, credentials: LiveKitCredentials, server: LiveKitServer) -> None:
        self._server = server
        self._credentials = credentials
        self._address = urlsplit(credentials.url).hostname or ""
        self._signed = lru_cache(maxsize=_ROOMS)(self._sign)

    @property
    def away(self) -> str:
        """Why this server would not be called now; empty when it would."""
        return self._server.away

    def _in(self, room_name: str) -> api.LiveKitAPI:
        """Return livekit-api's client for one room, with one token for all its calls.

        livekit-api by itself signs one for each (docs/decisions/0073-api-token-per-room.md).
        """
        return self._signed(room_name, int(time.time()) // _TOKEN_S)

    def _sign(self, room_name: str, number: int) -> api.LiveKitAPI:
        """Make the client of `_in` for period `number` of `_TOKEN_S` seconds since the epoch."""
        begins = number * _TOKEN_S
        claims = {
            "iss": self._credentials.api_key,
            "nbf": begins,
            "exp": begins + _TOKEN_TTL_S,
            "video": {"roomCreate": True, "roomList": True, "roomAdmin": True, "room": room_name},
        }
        token = signed(claims, self._credentials.api_secret)
        return api.LiveKitAPI.with_token(
            token, self._credentials.url, session=self._server.session, failover=False
        )

    async def probe(self) -> None:
        """List the participants of a room that cannot exist: empty, but authenticated and served.

        The call is made even with an open circuit, and an answer closes it.
        """
        room_name = "usher-readiness-probe"
        request = api.ListParticipantsRequest(room=room_name)
        await self._server.call(self._in(room_name).room.list_participants(request), probe=True)

    async def create_room(
        self, dispatch: Dispatch, *, automatic: bool = False, resend: int = 0
    ) -> None:
        """Create the room, and with it have LiveKit offer the job; promises nothing more.

        A room that exists stays as it is, and no job is offered: `list_dispatch` tells. The room
        names its agent, because LiveKit starts its agents without a name in a room that names none
        (`CreateDispatch` creates such a room, too): a second agent, which only `automatic` wants.
        See docs/decisions/0021-agent-asked-for-with-its-room.md.
        """
        with self._traced("RoomService/CreateRoom", resend=resend) as span:
            wanted = api.RoomAgentDispatch(
                agent_name=dispatch.agent_name,
                deployment=dispatch.deployment,
                metadata=dispatch.agent_metadata,
                attributes=_job_attributes(dispatch, span),
            )
            others = [api.RoomAgentDispatch()] if automatic else []
            request = api.CreateRoomRequest(name=dispatch.room_name, agents=[*others, wanted])
            await self._server.call(self._in(dispatch.room_name).room.create_room(request))

    async def create_job(
        self, dispatch: Dispatch, *, automatic: bool = False, resend: int = 0
    ) -> str:
        """Create the room unless it is there, and return a job in it: LiveKit's `Job`, as JSON.

        LiveKit knows nothing of the job. The room names an agent that does not exist, for the
        reason for which `create_room` names its agent; `automatic` again wants those without a
        name.
        """
        with self._traced("RoomService/CreateRoom", resend=resend) as span:
            others = [] if automatic else [api.RoomAgentDispatch(agent_name=PLACED_BY_USHER)]
            request = api.CreateRoomRequest(name=dispatch.room_name, agents=others)
            room = await self._server.call(self._in(dispatch.room_name).room.create_room(request))
            job = Job(
                id=f"AJ_{secrets.token_hex(6)}",
                type=JobType.JT_ROOM,
                room=room,
                agent_name=dispatch.agent_name,
                deployment=dispatch.deployment,
                metadata=dispatch.agent_metadata,
                attributes=_job_attributes(dispatch, span),
            )
        return MessageToJson(job, indent=None)

    async def create_dispatch(self, dispatch: Dispatch, *, resend: int = 0) -> str:
        """Have LiveKit offer the job; return LiveKit's dispatch id. Promises nothing more.

        `resend`: how often this attempt has asked before.
        """
        with self._traced("AgentDispatchService/CreateDispatch", resend=resend) as span:
            request = api.CreateAgentDispatchRequest(
                agent_name=dispatch.agent_name,
                deployment=dispatch.deployment,
                room=dispatch.room_name,
                metadata=dispatch.agent_metadata,
                attributes=_job_attributes(dispatch, span),
            )
            livekit = self._in(dispatch.room_name)
            created = await self._server.call(livekit.agent_dispatch.create_dispatch(request))
        return created.id

    async def list_dispatch(
        self, room_name: str, *, there: bool = False, deleted: bool = False
    ) -> list[RoomDispatch]:
        """Return our dispatches in a room; empty if there is no such room.

        `ListDispatch` takes 3 s for a room that does not exist, and answers 503 (measured). So the
        room is looked up first, unless it is known to be `there`. With `deleted` it may have been
        deleted while a person was joining it; a missing room is looked at more closely then, and is
        a `TransientLiveKitError` where LiveKit has lost it (`livekit/errors.py`).
        """
        livekit = self._in(room_name)
        if not there:
            request = api.ListRoomsRequest(names=[room_name])
            if not (await self._server.call(livekit.room.list_rooms(request))).rooms:
                if deleted:
                    await self._require_no_lost_room(room_name)
                return []
        listed = await self._server.call(livekit.agent_dispatch.list_dispatch(room_name))
        return [
            RoomDispatch(
                livekit_dispatch_id=item.id,
                dispatch_id=item.attributes[DISPATCH_ID],
                generation=_optional_int(item.attributes[GENERATION]),
            )
            for item in listed
            if DISPATCH_ID in item.attributes and not item.state.deleted_at
        ]

    async def _require_no_lost_room(self, room_name: str) -> None:
        """Raise a TransientLiveKitError if LiveKit still has a room that it does not list.

        LiveKit then answers `ListDispatch` with 404 at once; where there is no such room it says
        nothing for 3 s.
        """
        request = self._in(room_name).agent_dispatch.list_dispatch(room_name)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOST_ROOM_ANSWERS_WITHIN_S):
                await self._server.call(request, probe=True)

    async def delete_dispatch(self, livekit_dispatch_id: str, room_name: str) -> None:
        """Delete a dispatch: its agent leaves within 2 s. No error if there is none any more."""
        livekit = self._in(room_name)
        request = livekit.agent_dispatch.delete_dispatch(livekit_dispatch_id, room_name)
        with self._traced("AgentDispatchService/DeleteDispatch"):
            await self._unless_gone(request)

    async def look(self, room_name: str) -> RoomView:
        """Return the agents and the number of people in a room; empty if there is no such room."""
        request = api.ListParticipantsRequest(room=room_name)
        listed = await self._server.call(self._in(room_name).room.list_participants(request))
        agents = [p for p in listed.participants if p.kind == ParticipantInfo.AGENT]
        return RoomView(
            agents=tuple(_agent(p) for p in agents if p.state == ParticipantInfo.ACTIVE),
            people=sum(p.kind in PEOPLE for p in listed.participants),
            joining=tuple(_agent(p) for p in agents if p.state in _JOINING),
        )

    async def remove_participant(self, identity: str, room_name: str) -> None:
        """Remove a participant from a room. No error if there is none any more."""
        who = api.RoomParticipantIdentity(room=room_name, identity=identity)
        request = self._in(room_name).room.remove_participant(who)
        with self._traced("RoomService/RemoveParticipant"):
            await self._unless_gone(request)

    async def _unless_gone(self, request: Awaitable[object]) -> None:
        """Make a call that ends something; ignore that there is nothing to end (404)."""
        try:
            await self._server.call(request)
        except LiveKitError as error:
            cause = error.__cause__
            if not (isinstance(cause, api.TwirpError) and cause.status == 404):
                raise

    def _traced(self, method: str, *, resend: int = 0) -> AbstractContextManager[tracing.Span]:
        """Trace a call that changes something. Calls that only read are not traced."""
        attributes: dict[str, tracing.Value] = {
            "rpc.system.name": "twirp",
            "rpc.method": f"livekit.{method}",
            "server.address": self._address,
        }
        if resend:
            attributes["http.request.resend_count"] = resend
        return tracing.span(
            f"livekit.{method}", kind=tracing.SpanKind.CLIENT, attributes=attributes
        )


class LiveKitClients:
    """The LiveKit clients of this process; belongs to one event loop."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._servers: dict[str, LiveKitServer] = {}
        self._clients: dict[LiveKitCredentials, LiveKitClient] = {}

    def for_credentials(self, credentials: LiveKitCredentials) -> LiveKitClient:
        """Return the client for one server and key, made at its first use."""
        if credentials not in self._clients:
            if credentials.url not in self._servers:
                self._servers[credentials.url] = LiveKitServer(timeout_s=self._timeout_s)
            self._clients[credentials] = LiveKitClient(credentials, self._servers[credentials.url])
        return self._clients[credentials]

    async def aclose(self) -> None:
        """Close every connection."""
        for server in self._servers.values():
            await server.session.close()
