"""A fake LiveKit server for dispatch-only measurements: `python -m bench.fake_livekit PORT`.

It answers the calls that Usher and the other contenders make, on loopback, and keeps the order of
the requests for agents. No agent ever joins: it stands in for LiveKit only where the dispatching
alone is measured (backlog, memory, HTTP, live sessions by the thousand), never where agents are
counted.

`POST /joins` with the body `on` makes it list an ACTIVE agent in every room.
`POST /agents` with a job of LiveKit's makes that agent the one that is listed.
`GET /order` gives the rooms in the order in which they came, `GET /count?prefix=` how many there
are of `<prefix>-<number>`; `POST /forget` clears all.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from typing import Any

from aiohttp import web
from livekit import api
from livekit.protocol.agent import Job
from livekit.protocol.models import ParticipantInfo, Room

_TWIRP = "application/protobuf"


class FakeLiveKit:
    """Rooms by name, with what was asked for them."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.by_prefix: Counter[str] = Counter()
        self.asked: dict[str, api.CreateAgentDispatchRequest] = {}
        self.joined_at_ms: dict[str, int] = {}
        self.joins = False
        self._dispatches: dict[str, api.AgentDispatch] = {}
        self._numbers = itertools.count(1)

    async def twirp(self, request: web.Request) -> web.Response:
        """One call."""
        body = await request.read()
        answer: Any = getattr(self, f"_{request.match_info['method'].lower()}")(body)
        return web.Response(body=answer.SerializeToString(), content_type=_TWIRP)

    def _createroom(self, body: bytes) -> Any:
        request = api.CreateRoomRequest.FromString(body)
        if request.name not in self.asked:
            for agent in request.agents:
                self._ask(
                    api.CreateAgentDispatchRequest(
                        room=request.name,
                        agent_name=agent.agent_name,
                        metadata=agent.metadata,
                        attributes=agent.attributes,
                    )
                )
        return Room(name=request.name)

    def _createdispatch(self, body: bytes) -> Any:
        return self._ask(api.CreateAgentDispatchRequest.FromString(body))

    def _ask(self, wanted: api.CreateAgentDispatchRequest) -> api.AgentDispatch:
        self.order.append(wanted.room)
        self.by_prefix[wanted.room.rpartition("-")[0]] += 1
        self.asked[wanted.room] = wanted
        self.joined_at_ms[wanted.room] = time.time_ns() // 1_000_000
        self._dispatches[wanted.room] = api.AgentDispatch(
            id=f"AD_{next(self._numbers)}",
            agent_name=wanted.agent_name,
            room=wanted.room,
            attributes=wanted.attributes,
        )
        return self._dispatches[wanted.room]

    def _listdispatch(self, body: bytes) -> Any:
        dispatch = self._dispatches.get(api.ListAgentDispatchRequest.FromString(body).room)
        return api.ListAgentDispatchResponse(agent_dispatches=[dispatch] if dispatch else [])

    def _deletedispatch(self, body: bytes) -> Any:
        return api.AgentDispatch(id=api.DeleteAgentDispatchRequest.FromString(body).dispatch_id)

    def _listrooms(self, body: bytes) -> Any:
        names = api.ListRoomsRequest.FromString(body).names
        return api.ListRoomsResponse(rooms=[Room(name=n) for n in names if n in self.asked])

    def _listparticipants(self, body: bytes) -> Any:
        name = api.ListParticipantsRequest.FromString(body).room
        wanted = self.asked.get(name) if self.joins else None
        if wanted is None:
            return api.ListParticipantsResponse()
        agent = ParticipantInfo(
            identity=f"agent-{name}",
            kind=ParticipantInfo.AGENT,
            state=ParticipantInfo.ACTIVE,
            joined_at_ms=self.joined_at_ms[name],
            attributes={"lk.agent_name": wanted.agent_name, **wanted.attributes},
        )
        person = ParticipantInfo(identity=f"user-{name}", state=ParticipantInfo.ACTIVE)
        return api.ListParticipantsResponse(participants=[agent, person])

    def _removeparticipant(self, _: bytes) -> Any:
        return api.RemoveParticipantResponse()

    async def in_order(self, _: web.Request) -> web.Response:
        """The rooms as they came."""
        return web.Response(text=json.dumps(self.order), content_type="application/json")

    async def count(self, request: web.Request) -> web.Response:
        """Answer with the number of rooms `<prefix>-<number>` that have come."""
        return web.json_response(self.by_prefix[request.query.get("prefix", "")])

    async def let_join(self, request: web.Request) -> web.Response:
        """Set whether there is an agent in every room, from now on."""
        self.joins = await request.text() == "on"
        return web.Response()

    async def take_agent(self, request: web.Request) -> web.Response:
        """Keep the agent of a job that Usher has placed itself."""
        job = Job.FromString(await request.read())
        self.asked[job.room.name] = api.CreateAgentDispatchRequest(
            agent_name=job.agent_name, room=job.room.name, attributes=job.attributes
        )
        return web.Response()

    async def forget(self, _: web.Request) -> web.Response:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]
        return web.Response()


def application() -> web.Application:
    """The server."""
    fake = FakeLiveKit()
    app = web.Application()
    app.router.add_post("/twirp/{service}/{method}", fake.twirp)
    app.router.add_get("/order", fake.in_order)
    app.router.add_get("/count", fake.count)
    app.router.add_post("/joins", fake.let_join)
    app.router.add_post("/agents", fake.take_agent)
    app.router.add_post("/forget", fake.forget)
    app.router.add_get("/", fake.count)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
