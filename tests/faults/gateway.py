"""A gateway before a LiveKit server that now and then answers garbage in its place.

`python -m tests.faults.gateway PORT LIVEKIT_PORT`. Everything passes unchanged, WebSockets too,
until `spoil` asks for another answer to the API's calls (`POST /spoil?...` on the gateway's port).
It is a process of its own, so that a busy test does not delay what passes through.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

_CHUNK_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 1 << 16
_CALLS: Final = b" /twirp/"
_SPOIL: Final = b"POST /spoil?"
# How long one spoiled answer is waited for where nothing is asked of LiveKit.
_ONE_WITHIN_S: Final = 3.0


class Garbage(StrEnum):
    """What stands in the place of LiveKit's answer."""

    EMPTY_LIST = "503 []"
    JSON_STRING = '503 "x"'
    NO_BODY = "503 without a body"
    HTML = "502 with HTML"
    TEXT = "200 with text"
    CUT_OFF = "200 cut off"
    NOTHING = "no answer"
    HANGS = "no answer, and the connection stays open"


_JSON, _HTML = "application/json", "text/html"
_PAGE: Final = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def _answer(status: str, kind: str, body: bytes, *, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    size = len(body) if length is None else length
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + body


_ANSWERS: Final[Mapping[Garbage, bytes]] = {
    Garbage.EMPTY_LIST: _answer("503 Service Unavailable", _JSON, b"[]"),
    Garbage.JSON_STRING: _answer("503 Service Unavailable", _JSON, b'"x"'),
    Garbage.NO_BODY: _answer("503 Service Unavailable", _JSON, b""),
    Garbage.HTML: _answer("502 Bad Gateway", _HTML, _PAGE),
    Garbage.TEXT: _answer("200 OK", "text/plain", b"hello, I am another server"),
    Garbage.CUT_OFF: _answer("200 OK", "application/protobuf", b"\x0a\x10half", length=200),
    Garbage.NOTHING: b"",
    Garbage.HANGS: b"",
}
# What can be told from its own name; a test that hangs everything asks for the last one by name.
PASSING: Final = tuple(kind for kind in Garbage if kind is not Garbage.HANGS)


async def spoil(port: int, garbage: Garbage, *, for_s: float = 0.0, carried_out: bool) -> int:
    """Have calls answered with garbage, for so long or (0) a single one; how many were.

    `carried_out`: LiveKit does what is asked, and only its answer is lost. Returns when it is over,
    at the latest with the next `spoil`.
    """
    query = urlencode({"garbage": garbage, "for_s": for_s, "carried_out": int(carried_out)})
    async with asyncio.timeout(for_s + _ONE_WITHIN_S + 5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"%s%s HTTP/1.1\r\n\r\n" % (_SPOIL, query.encode()))
            answer = await reader.read()
        finally:
            writer.close()
    return int(answer.rpartition(b"\r\n\r\n")[2])


@dataclass(kw_only=True)
class _Spoiling:
    """One order to spoil answers."""

    garbage: Garbage
    carried_out: bool
    single: bool
    over: asyncio.Event
    count: int = 0

    @classmethod
    def read(cls, query: str) -> tuple[_Spoiling, float]:
        """The order, and for how long it holds."""
        given = {name: values[0] for name, values in parse_qs(query).items()}
        for_s = float(given["for_s"])
        order = cls(
            garbage=Garbage(given["garbage"]),
            carried_out=given["carried_out"] == "1",
            single=not for_s,
            over=asyncio.Event(),
        )
        return order, for_s or _ONE_WITHIN_S


class _Request:
    """One request as it came in, head and body."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body

    @property
    def first_line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    def once_only(self) -> bytes:
        """The request for a connection of its own, which the server ends after its answer."""
        lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        return b"\r\n".join([*kept, b"Connection: close", b"", b""]) + self.body


async def _read(reader: asyncio.StreamReader) -> _Request:
    """The next request. Raises IncompleteReadError where there is none."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return _Request(head, await reader.readexactly(length) if length else b"")


class Gateway:
    """Passes on what comes, or spoils it."""

    def __init__(self, livekit_port: int) -> None:
        self._livekit_port = livekit_port
        self._spoiling: _Spoiling | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        upstream: asyncio.StreamWriter | None = None
        back: asyncio.Task[None] | None = None
        try:
            while True:
                request = await _read(reader)
                if request.head.startswith(_SPOIL):
                    await self._obey(request, writer)
                    return
                if _CALLS in request.first_line and (order := self._next()):
                    await self._spoil(order, request, writer)
                    return
                if upstream is None:
                    answers, upstream = await self._connect()
                    back = asyncio.create_task(_pass_on(answers, writer))
                upstream.write(request.head + request.body)
                if b"\r\nupgrade:" in request.head.lower():
                    await _pass_on(reader, upstream)
                    return
                await upstream.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # either side has gone, or LiveKit is not there: so is this connection
        finally:
            for each in (upstream, writer):
                if each is not None:
                    each.close()
            if back is not None:
                back.cancel()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._livekit_port)

    def _next(self) -> _Spoiling | None:
        """The order that this call falls under."""
        order = self._spoiling
        if order is not None:
            order.count += 1
            if order.single:
                self._spoiling = None
                order.over.set()
        return order

    async def _obey(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        target = request.first_line.split(b" ")[1].decode()
        order, for_s = _Spoiling.read(urlsplit(target).query)
        if self._spoiling is not None:
            self._spoiling.over.set()  # the last word counts
        self._spoiling = order
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(order.over.wait(), for_s)
        order.over.set()
        if self._spoiling is order:
            self._spoiling = None
        writer.write(_answer("200 OK", "text/plain", str(order.count).encode()))
        await writer.drain()

    async def _spoil(
        self, order: _Spoiling, request: _Request, writer: asyncio.StreamWriter
    ) -> None:
        if order.carried_out:
            answer, upstream = await self._connect()
            upstream.write(request.once_only())
            await answer.read()
            upstream.close()
        if order.garbage is Garbage.HANGS:
            await order.over.wait()
        writer.write(_ANSWERS[order.garbage])
        await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes as they come, until there are no more; then the other side is told, too."""
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port: int, livekit_port: int) -> None:
    """Serve for ever."""
    gateway = Gateway(livekit_port)
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", port, limit=_HEAD_BYTES)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
