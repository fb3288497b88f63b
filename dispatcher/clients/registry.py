"""The registry of this process: from the file of clients, or of one client in the environment."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from dispatcher.clients.client_registry import ClientRegistry, FileRegistry
from dispatcher.clients.models import ApiKey, Client, KeyKind, LiveKitCredentials
from dispatcher.domain import urls
from dispatcher.domain.models import Limits
from dispatcher.errors import ConfigurationError
from dispatcher.settings import ClientSettings, ClientsFileSettings, DispatcherSettings, load


@lru_cache(maxsize=1)
def registry() -> ClientRegistry:
    """Return the registry of this process: of the file `USHER_CLIENTS_FILE`, else of one client.

    Raise a `ConfigurationError` that says where a setting or the file is wrong.
    """
    path = load(ClientsFileSettings).clients_file
    if path:
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
    digest = settings.publishable_key_sha256
    if not digest:
        return (secret,)
    if digest == secret.sha256:
        raise ConfigurationError(
            "USHER_PUBLISHABLE_KEY_SHA256: is the secret key's; everybody would see that one"
        )
    return (
        secret,
        ApiKey(key_id="environment-publishable", kind=KeyKind.PUBLISHABLE, sha256=digest),
    )


def _origins(text: str) -> tuple[str, ...]:
    try:
        return tuple(urls.origin(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigurationError(f"USHER_ORIGINS: each {error}") from None
