"""What a person says in a room, and which agent answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from livekit import rtc

from .agent import ANSWERS, WORDS

# A word costs about as much as its answer, so the one who is served asks less often.
_EVERY_S: Final = 1.0
_WHILE_UNANSWERED_S: Final = 0.4
_SERVED_S: Final = 2.0
_SAID_WITHIN_S: Final = 3.0

Note = Callable[[str, int], object]  # the agent that has answered, and which word


class Talk:
    """One person's words into one connection to a room, until it is ended."""

    def __init__(self, room: rtc.Room, words: Iterator[int], note: Note) -> None:
        self._room = room
        self._words = words
        self._note = note
        self._answered_at: float | None = None
        self._reading: set[asyncio.Task[None]] = set()
        self._speaking: asyncio.Task[None] | None = None
        room.register_text_stream_handler(ANSWERS, self._on_answer)

    @property
    def served(self) -> bool:
        """True while an agent answers."""
        return self._answered_at is not None and time.monotonic() - self._answered_at < _SERVED_S

    def begin(self) -> None:
        self._speaking = asyncio.create_task(self._speak())

    async def end(self) -> None:
        tasks = [*self._reading, *([self._speaking] if self._speaking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _speak(self) -> None:
        while True:
            word = str(next(self._words))
            # While the connection is lost nothing can be said; it is tried again. Not `wait_for`:
            # it takes a cancellation for itself that comes with its result (Python 3.11).
            with suppress(rtc.StreamError, TimeoutError):
                async with asyncio.timeout(_SAID_WITHIN_S):
                    await self._room.local_participant.send_text(word, topic=WORDS)
            await asyncio.sleep(_EVERY_S if self.served else _WHILE_UNANSWERED_S)

    def _on_answer(self, reader: rtc.TextStreamReader, agent: str) -> None:
        task = asyncio.create_task(self._read(reader, agent))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read(self, reader: rtc.TextStreamReader, agent: str) -> None:
        try:
            word = int(await reader.read_all())
        except rtc.StreamError:  # the connection was lost in the middle of it
            return
        self._answered_at = time.monotonic()
        self._note(agent, word)
