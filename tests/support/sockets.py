"""Servers at the socket for tests, and a proxy between a client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    """Run a server that hands every connection to `handle`, then hangs up; yield its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one whole HTTP request with its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


def answering(status: int, body: str, content_type: str = "application/json") -> Handler:
    """Make a handler that gives the same HTTP answer to every request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()

    return answer


async def never_answering(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read until the caller hangs up, and answer nothing (a handler)."""
    await reader.read()


class LossyProxy:
    """A proxy to a real server that loses the reply to each request with `losing` in its path.

    The server has carried out the request, as when a connection breaks before the reply.
    """

    def __init__(self, *, target_port: int, losing: bytes, times: int) -> None:
        self._target_port = target_port
        self._losing = losing
        self._times = times
        self.seen = 0  # requests of that path
        self.lost = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            reply = await self._ask(request)
            if self._losing in request.split(b"\r\n", 1)[0]:
                self.seen += 1
                if self.lost < self._times:
                    self.lost += 1
                    return
            writer.write(reply)
            await writer.drain()

    async def _ask(self, request: bytes) -> bytes:
        """Return the server's answer, read until the server hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
