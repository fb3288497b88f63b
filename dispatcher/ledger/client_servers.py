"""Each client's LiveKit server, published to agent servers through Redis.

A job names its client, and any holder of a key of the LiveKit server that offers the job can forge
that name. Agent servers have no file of clients, so the workers write each client's LiveKit server
into Redis; an agent server accepts a job only for a client of the LiveKit server that it is itself
registered with.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from dispatcher.clients.models import Client
from dispatcher.domain import urls
from dispatcher.ledger import keys
from dispatcher.ledger.step import Step, ms

# After so long without a word from any worker, the clients' LiveKit servers are unknown.
TTL_S = 86_400


@dataclass(frozen=True, kw_only=True)
class LiveKitServer:
    """One LiveKit server with one key, in a form that may be stored in Redis.

    Two clients with the same proof are one customer's (docs/clients.md).
    """

    proof: str  # derived from the key's secret; reveals no more of it than a token signed with it
    address: str  # host and port

    @classmethod
    def of(cls, url: str, api_key: str, api_secret: str) -> LiveKitServer:
        """Return the server at `url`, with the proof of a holder of that key."""
        address = ""
        with suppress(ValueError, KeyError):  # the URL may be unchecked
            address = ":".join(map(str, urls.server(url)))
        proof = hmac.digest(api_secret.encode(), f"usher:{api_key}".encode(), "sha256").hex()
        return cls(proof=proof, address=address)


def own() -> LiveKitServer:
    """Return the server that this agent server, or the job in this process, is registered with.

    livekit-agents puts the program's settings into the environment (1.8.9, `AgentServer.run`), and
    its job processes have them from there.
    """
    names = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
    return LiveKitServer.of(*(os.environ.get(name, "") for name in names))


def tell(clients: Iterable[Client]) -> Step[int]:
    """Write these clients' LiveKit servers; those of other clients stay unchanged."""
    told: list[str] = []
    for client in clients:
        livekit = client.livekit
        server = LiveKitServer.of(livekit.url, livekit.api_key, livekit.api_secret)
        told += (client.client_id, json.dumps({"client_id": client.client_id, **asdict(server)}))
    return Step("report", (keys.CLIENTS,), (ms(TTL_S), "", *told), int)


def told() -> Step[dict[str, LiveKitServer]]:
    """Return each client's LiveKit server, as far as a worker has written it."""

    def parse(reply: Iterable[str]) -> dict[str, LiveKitServer]:
        found = (json.loads(text) for text in reply)
        return {
            each["client_id"]: LiveKitServer(proof=each["proof"], address=each["address"])
            for each in found
        }

    return Step("fresh", (keys.CLIENTS,), (), parse)


def clients_at(server: LiveKitServer, told: Mapping[str, LiveKitServer]) -> frozenset[str]:
    """Return the clients of that LiveKit server.

    Those with the same key and secret, and those that share their LiveKit server. An agent server
    may have a key of its own; then its address decides. An only client matches always, by whatever
    address its server is reached from here.
    """
    addresses = {its.address for its in told.values() if its.proof == server.proof}
    addresses = addresses or {server.address}
    found = frozenset(
        client_id
        for client_id, its in told.items()
        if its.proof == server.proof or (its.address and its.address in addresses)
    )
    return found or (frozenset(told) if len(told) == 1 else frozenset())
