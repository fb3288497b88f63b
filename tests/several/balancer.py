"""A load balancer for TCP: `python -m tests.several.balancer ADDRESS PORT BACKEND...`.

As any in front of several LiveKit nodes: it asks each twice a second whether it is well, gives a
new connection to the next one that is, and closes the connections of one that is not. It notices
within seconds that a client's host has vanished (haproxy: `tcp-ut`), which LiveKit itself does not:
it would go on offering jobs to an agent server that is no more (docs/scaling.md).
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys

from dispatcher.connections.sentinel import KEEPALIVE_OPTIONS

_LOOK_EVERY_S = 0.5
_ANSWERS_WITHIN_S = 1.0


class Backend:
    """One server behind it."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.well = False
        self.open: set[asyncio.StreamWriter] = set()

    async def look(self) -> None:
        while True:
            self.well = await self._answers()
            if not self.well:
                for writer in tuple(self.open):
                    writer.transport.abort()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                reader, writer = await asyncio.open_connection(self.address, self.port)
                try:
                    writer.write(b"GET / HTTP/1.0\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        writer.transport.abort()
    else:
        writer.close()


def _probed(writer: asyncio.StreamWriter) -> asyncio.StreamWriter:
    """Have the kernel end this connection when nobody confirms any more."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE_OPTIONS.items():
        raw.setsockopt(socket.IPPROTO_TCP, option, value)
    return writer


async def main(address: str, port: int, backends: list[Backend]) -> None:
    """Serve for ever."""
    turns = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = next(turns)
        order = [backends[(turn + n) % len(backends)] for n in range(len(backends))]
        for backend in (each for each in order if each.well):
            try:
                async with asyncio.timeout(_ANSWERS_WITHIN_S):
                    inside = await asyncio.open_connection(backend.address, backend.port)
            except (OSError, TimeoutError):
                continue
            both = {_probed(writer), _probed(inside[1])}
            backend.open |= both
            await asyncio.gather(_copy(reader, inside[1]), _copy(inside[0], writer))
            backend.open -= both
            return
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for backend in backends:
            tasks.create_task(backend.look())
        server = await asyncio.start_server(serve, address, port)
        tasks.create_task(server.serve_forever())


if __name__ == "__main__":
    named = [Backend(host, int(port)) for host, _, port in (b.partition(":") for b in sys.argv[3:])]
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), named))
