"""Look-up of a deployment's clients by id and by key."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from dispatcher.clients.models import ApiKey, Client
from dispatcher.errors import ConfigurationError


class _Index:
    """The clients by id, and the keys of the enabled ones by SHA-256."""

    def __init__(self, clients: tuple[Client, ...]) -> None:
        self.clients = clients
        self.by_id = {client.client_id: client for client in reversed(clients)}
        self.by_digest = {
            key.sha256: (client, key)
            for client in clients
            for key in client.keys
            if not key.disabled
        }


class ClientRegistry:
    """All clients of this deployment. `clients` may return another tuple at the next access."""

    def __init__(self, *, clients: Sequence[Client]) -> None:
        self._clients = tuple(clients)
        self._index = _Index(self._clients)

    @property
    def clients(self) -> tuple[Client, ...]:
        """Every client, disabled ones too."""
        return self._clients

    @property
    def error(self) -> str:
        """What is wrong with the source, so that the earlier clients still hold; "" if nothing."""
        return ""

    def has(self, client_id: str) -> bool:
        """Return True while a client with this id exists."""
        return client_id in self._indexed().by_id

    def by_id(self, client_id: str) -> Client:
        """Return the client with this id.

        Raises:
            ConfigurationError: no such client is configured (any longer).
        """
        if client := self._indexed().by_id.get(client_id):
            return client
        raise ConfigurationError(
            f"client {client_id!r} is not configured; add it again or cancel its dispatches"
        )

    def by_key(self, api_key: str) -> tuple[Client, ApiKey] | None:
        """Return the client and the key itself; None for an unknown key or a disabled client.

        The look-up is by SHA-256: its time depends on digests, and these tell nothing of a key that
        has a part in common with another. The digests are compared in constant time nevertheless.
        """
        digest = sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()
        found = self._indexed().by_digest.get(digest)
        if found is None or not hmac.compare_digest(digest, found[1].sha256):
            return None
        return found

    def _indexed(self) -> _Index:
        """Return the index of the present clients; make a new one when they have changed."""
        clients, index = self.clients, self._index
        if index.clients is not clients:
            index = self._index = _Index(clients)
        return index
