"""A customer's webhook server, which receives the events of their dispatches by real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + "dXNoZXItdGVzdHMtd2ViaG9vay1zZWNyZXQtMzJi"


@dataclass
class Receiver:
    """A server that answers with the statuses of `answers`, then 204, and keeps each event."""

    answers: list[int] = field(default_factory=list)
    hangs: bool = False
    url: str = ""
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    def events(self) -> list[dict[str, Any]]:
        """Return the received events, each verified as a customer verifies it."""
        return [Webhook(SECRET).verify(body, headers) for headers, body in self.got]

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.text()))
        if self.hangs:
            await asyncio.sleep(30)
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": f"{self.url}/elsewhere"})


@contextlib.asynccontextmanager
async def receiving(receiver: Receiver, port: int = 0) -> AsyncIterator[Receiver]:
    """Run the receiver on loopback."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks?token=canary"
    try:
        yield receiver
    finally:
        await runner.cleanup()
