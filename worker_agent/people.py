"""Follow which people are in a job's room, since when, and when one has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livekit import rtc
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS

from dispatcher.domain.job_attributes import AGENT_NAME, DISPATCH_ID
from worker_agent.decisions import Offer
from worker_agent.ending import People


class PeopleInRoom:
    """The people in one room, as its agent sees them; belongs to the job's event loop.

    `met` is true once there has been one. An agent hears up to 3 s late of people who publish
    nothing (`ending.ASKED_SLACK_S`).
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._began_at = asyncio.get_running_loop().time()
        self._came_at: dict[str, float] = {}  # by the sid of those who came while it was there
        self._left_at: float | None = None
        self.met = False

    def watch(
        self,
        *,
        came: Callable[[], None],
        left: Callable[[], None],
        foreign: Callable[[], object],
        successor: Callable[[], object],
        offer: Offer,
    ) -> None:
        """Call back when a person has come, when one has left, and when another agent has come.

        Agents of `offer`'s name: a foreign one carries no dispatch id of Usher's, and a successor
        another one than this agent's.
        """

        def on_connected(participant: rtc.RemoteParticipant) -> None:
            attributes = participant.attributes
            if participant.kind in DEFAULT_PARTICIPANT_KINDS:
                self.met = True
                self._came_at[participant.sid] = asyncio.get_running_loop().time()
                came()
            elif attributes.get(AGENT_NAME) == offer.agent_name:
                dispatch_id = attributes.get(DISPATCH_ID)
                if not dispatch_id:
                    foreign()
                elif dispatch_id != offer.dispatch_id:
                    successor()

        def on_disconnected(participant: rtc.RemoteParticipant) -> None:
            if participant.kind in DEFAULT_PARTICIPANT_KINDS:
                self._left_at = asyncio.get_running_loop().time()
                self._came_at.pop(participant.sid, None)
                left()

        self._room.on("participant_connected", on_connected)
        self._room.on("participant_disconnected", on_disconnected)

    def now(self) -> People:
        """Return the people who are there at this moment."""
        now = asyncio.get_running_loop().time()
        there_s = [
            now - self._came_at.get(person.sid, self._began_at)
            for person in self._room.remote_participants.values()
            if person.kind in DEFAULT_PARTICIPANT_KINDS
        ]
        self.met = self.met or bool(there_s)
        return People(
            present=len(there_s),
            left_ago_s=None if self._left_at is None else now - self._left_at,
            there_s=max(there_s, default=0.0),
        )
