"""A client, its LiveKit credentials and its API keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.domain.models import NO_LIMITS, Limits


@dataclass(frozen=True, kw_only=True)
class LiveKitCredentials:
    """One LiveKit server (`ws://` or `wss://` URL) and the key pair to sign with."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)


class KeyKind(StrEnum):
    """Where a key is used: on the client's servers, or in browsers, where it is public."""

    SECRET = "secret"  # nosec B105  # the name of a kind
    PUBLISHABLE = "publishable"


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """One of a client's keys. Usher has only its SHA-256, not the key."""

    key_id: str
    kind: KeyKind
    sha256: str = field(repr=False)
    disabled: bool = False


@dataclass(frozen=True, kw_only=True)
class Client:
    """A customer of the SaaS: its LiveKit, its keys, the agents it may use, and its limits."""

    client_id: str
    keys: tuple[ApiKey, ...] = ()
    livekit: LiveKitCredentials
    agent_names: tuple[str, ...]
    container: str
    deadline_s: float
    delegates: bool = True  # without Redis, LiveKit's own token dispatch brings the agent
    delegates_metadata: bool = False  # and the token may show the agent's metadata to its holder
    origins: tuple[str, ...] = ()  # origins from which a browser may call
    limits: Limits = NO_LIMITS
    webhook_url: str = ""  # on the client's own server, which gets the results of dispatches
    webhook_secret: str = field(default="", repr=False)
    placement: str = ""  # of its jobs, "livekit" or "direct"; empty: the workers' USHER_PLACEMENT
    disabled: bool = False  # its keys are refused; its open sessions go on to their end

    @property
    def default_agent_name(self) -> str:
        """Agent for a request without `agent_name`: the first of the list."""
        return self.agent_names[0]

    def may_use(self, agent_name: str) -> bool:
        """Return True when this client may have `agent_name` dispatched."""
        return agent_name in self.agent_names
