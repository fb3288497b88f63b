"""The clients of this deployment: of the file of clients, or the one of the environment."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from dispatcher.clients.models import ApiKey, Client, KeyKind, LiveKitCredentials
from dispatcher.domain import urls
from dispatcher.domain.models import Limits
from dispatcher.errors import ConfigurationError
from dispatcher.settings import ClientSettings, ClientsFileSettings, DispatcherSettings, load


class _Index:
    """The clients by their id, and the keys that open something by their SHA-256."""

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
    """All clients of this deployment. `clients` may be another tuple at the next look."""

    def __init__(self, *, clients: Sequence[Client]) -> None:
        self._clients = tuple(clients)
        self._index = _Index(self._clients)

    @property
    def clients(self) -> tuple[Client, ...]:
        """Every client, disabled ones too."""
        return self._clients

    @property
    def error(self) -> str:
        """What is wrong with the source, so that the clients are those of before; "" if nothing."""
        return ""

    def has(self, client_id: str) -> bool:
        """True while there is a client with this id."""
        return client_id in self._indexed().by_id

    def by_id(self, client_id: str) -> Client:
        """The client with this id.

        Raises:
            ConfigurationError: a record names a client that is configured no longer.
        """
        if client := self._indexed().by_id.get(client_id):
            return client
        raise ConfigurationError(
            f"client {client_id!r} is not configured; add it again or cancel its dispatches"
        )

    def by_key(self, api_key: str) -> tuple[Client, ApiKey] | None:
        """The client and the key itself; None when no client has it, or it is disabled.

        It is looked up by its SHA-256: how long that takes depends on digests, and these tell
        nothing of a key that shares a part of its own with another. The digests are compared in
        constant time all the same.
        """
        digest = sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()
        found = self._indexed().by_digest.get(digest)
        if found is None or not hmac.compare_digest(digest, found[1].sha256):
            return None
        return found

    def _indexed(self) -> _Index:
        """The index of the clients as they are now; made anew when they are others."""
        clients, index = self.clients, self._index
        if index.clients is not clients:
            index = self._index = _Index(clients)
        return index


@lru_cache(maxsize=1)
def registry() -> ClientRegistry:
    """The registry of this process: the file of `USHER_CLIENTS_FILE`, else one client.

    Raises:
        ConfigurationError: a setting or the file is wrong; the message says where.
    """
    path = load(ClientsFileSettings).clients_file
    if path:
        from dispatcher.clients.file_registry import FileRegistry

        try:
            return FileRegistry(Path(path))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"Usher cannot start, correct the file of USHER_CLIENTS_FILE: {error}"
            ) from None
    return ClientRegistry(clients=(_client_of_environment(),))


def _client_of_environment() -> Client:
    settings = load(ClientSettings)
    agent_names = tuple(name.strip() for name in settings.agent_names.split(",") if name.strip())
    if not agent_names:
        raise ConfigurationError("USHER_AGENT_NAMES: name at least one agent")
    if settings.webhook_url:
        allow_private = load(DispatcherSettings).webhook_allow_private
        try:
            urls.webhook_url(settings.webhook_url, allow_private=allow_private)
        except ValueError as error:
            raise ConfigurationError(f"USHER_WEBHOOK_URL: it {error}") from None
    return Client(
        client_id=settings.client_id,
        keys=_keys_of_environment(settings),
        livekit=LiveKitCredentials(
            url=settings.livekit_url,
            api_key=settings.livekit_api_key,
            api_secret=settings.livekit_api_secret.get_secret_value(),
        ),
        agent_names=agent_names,
        container=settings.container,
        deadline_s=settings.deadline_s,
        delegates=settings.delegate,
        delegates_metadata=settings.delegate_metadata,
        origins=_origins(settings.origins),
        limits=Limits(
            requests_per_minute=settings.requests_per_minute, max_sessions=settings.max_sessions
        ),
        webhook_url=settings.webhook_url,
        webhook_secret=settings.webhook_secret.get_secret_value(),
    )


def _keys_of_environment(settings: ClientSettings) -> tuple[ApiKey, ...]:
    secret = ApiKey(key_id="environment", kind=KeyKind.SECRET, sha256=settings.api_key_sha256)
    if not settings.publishable_key_sha256:
        return (secret,)
    if settings.publishable_key_sha256 == secret.sha256:
        raise ConfigurationError(
            "USHER_PUBLISHABLE_KEY_SHA256: is the secret key's; everybody would see that one"
        )
    return (
        secret,
        ApiKey(
            key_id="environment-publishable",
            kind=KeyKind.PUBLISHABLE,
            sha256=settings.publishable_key_sha256,
        ),
    )


def _origins(text: str) -> tuple[str, ...]:
    try:
        return tuple(urls.origin(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigurationError(f"USHER_ORIGINS: each {error}") from None
