"""Where each client's LiveKit server is, told to agent servers through Redis.

A job says for which client it is, and whoever has a key of the LiveKit server that offers it can
have it say anything. Agent servers have no file of clients, so the workers write into Redis where
each client's LiveKit is; an agent server believes of a job only that it is for a client of the
LiveKit server that it is registered with itself.
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
from dispatcher.ledger.step import Step

# Without a word from any worker for so long nobody knows whose LiveKit is where.
TTL_S = 86_400


@dataclass(frozen=True, kw_only=True)
class LiveKitServer:
    """One LiveKit server with one key, in a form that may stand in Redis.

    `proof` comes from the key's secret, and tells no more of it than any token that it has signed;
    two clients with the same one are one customer's (docs/clients.md). `address` is host and port.
    """

    proof: str
    address: str

    @classmethod
    def of(cls, url: str, api_key: str, api_secret: str) -> LiveKitServer:
        """The server at `url`, as who has that key of it knows it."""
        address = ""
        with suppress(ValueError, KeyError):  # a URL that nobody has checked
            address = ":".join(map(str, urls.server(url)))
        proof = hmac.digest(api_secret.encode(), f"usher:{api_key}".encode(), "sha256").hex()
        return cls(proof=proof, address=address)


def own() -> LiveKitServer:
    """The one that this agent server, or the job in this process, is registered with.

    livekit-agents puts what its program has told it into the environment (1.8.9,
    `AgentServer.run`), where its job processes have it from.
    """
    names = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
    return LiveKitServer.of(*(os.environ.get(name, "") for name in names))


def tell(clients: Iterable[Client]) -> Step[int]:
    """Write down where these clients' LiveKit servers are; of others nothing is changed."""
    told: list[str] = []
    for client in clients:
        livekit = client.livekit
        server = LiveKitServer.of(livekit.url, livekit.api_key, livekit.api_secret)
        told += (client.client_id, json.dumps({"client_id": client.client_id, **asdict(server)}))
    return Step("tell_clients", (keys.CLIENTS,), (str(TTL_S * 1000), *told), int)


def told() -> Step[dict[str, LiveKitServer]]:
    """Where each client's LiveKit server is, as far as a worker has said so."""

    def parse(reply: Iterable[str]) -> dict[str, LiveKitServer]:
        found = (json.loads(text) for text in reply)
        return {
            each["client_id"]: LiveKitServer(proof=each["proof"], address=each["address"])
            for each in found
        }

    return Step("fresh", (keys.CLIENTS,), (), parse)


def clients_at(server: LiveKitServer, told: Mapping[str, LiveKitServer]) -> frozenset[str]:
    """The clients whose LiveKit server that is.

    Those with the same key and secret, and those that share their LiveKit server. An agent server
    may have a key of its own: then it goes by the address. Where there is only one client the
    server is that one's, by whatever address it is reached from here.
    """
    addresses = {its.address for its in told.values() if its.proof == server.proof}
    addresses = addresses or {server.address}
    found = frozenset(
        client_id
        for client_id, its in told.items()
        if its.proof == server.proof or (its.address and its.address in addresses)
    )
    return found or (frozenset(told) if len(told) == 1 else frozenset())
