"""Which clients are there, what may each of them use, and whose key is this?"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from dispatcher.errors import ConfigurationError
from dispatcher.settings import ClientSettings, load


@dataclass(frozen=True, kw_only=True)
class LiveKitCredentials:
    """One LiveKit server (`ws://` or `wss://` URL) and the key pair to sign with."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Client:
    """A customer of the SaaS: its LiveKit, the agents it may use, its container and deadline."""

    client_id: str
    api_key_sha256: str = field(repr=False)
    livekit: LiveKitCredentials
    agent_names: tuple[str, ...]
    container: str
    deadline_s: float
    delegates: bool = True  # without Redis, LiveKit's own token dispatch brings the agent
    webhook_url: str = ""  # the client's own server, which is told how dispatches end
    webhook_secret: str = field(default="", repr=False)

    @property
    def default_agent_name(self) -> str:
        """The agent that a request without `agent_name` gets: the first of the list."""
        return self.agent_names[0]

    def may_use(self, agent_name: str) -> bool:
        """True when this client may have `agent_name` dispatched."""
        return agent_name in self.agent_names


@dataclass(frozen=True, kw_only=True)
class ClientRegistry:
    """All clients of this deployment."""

    clients: tuple[Client, ...]

    def by_id(self, client_id: str) -> Client:
        """The client with this id.

        Raises:
            ConfigurationError: a record names a client that is configured no longer.
        """
        for client in self.clients:
            if client.client_id == client_id:
                return client
        raise ConfigurationError(
            f"client {client_id!r} is not configured; add it again or cancel its dispatches"
        )

    def by_key(self, api_key: str) -> Client | None:
        """The client whose key this is, compared in constant time; None when it is nobody's."""
        digest = sha256(api_key.encode()).hexdigest()
        found = None
        for client in self.clients:
            if hmac.compare_digest(digest, client.api_key_sha256):
                found = client
        return found


@lru_cache(maxsize=1)
def registry() -> ClientRegistry:
    """The registry of this process, read from the environment once."""
    settings = load(ClientSettings)
    agent_names = tuple(name.strip() for name in settings.agent_names.split(",") if name.strip())
    if not agent_names:
        raise ConfigurationError("USHER_AGENT_NAMES: name at least one agent")
    return ClientRegistry(
        clients=(
            Client(
                client_id=settings.client_id,
                api_key_sha256=settings.api_key_sha256,
                livekit=LiveKitCredentials(
                    url=settings.livekit_url,
                    api_key=settings.livekit_api_key,
                    api_secret=settings.livekit_api_secret.get_secret_value(),
                ),
                agent_names=agent_names,
                container=settings.container,
                deadline_s=settings.deadline_s,
                delegates=settings.delegate,
                webhook_url=settings.webhook_url,
                webhook_secret=settings.webhook_secret.get_secret_value(),
            ),
        )
    )
