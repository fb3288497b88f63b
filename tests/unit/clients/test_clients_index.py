"""How is a client found, by its id and by a key?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.models import Client
from dispatcher.clients.schema import Surroundings, parse
from dispatcher.errors import ConfigurationError
from tests.support.clientsfile import ENVIRON, a_client, a_key


class Counted(tuple[Client, ...]):
    """Clients that count how often all of them are gone through."""

    walks = 0

    def __iter__(self) -> Iterator[Client]:
        self.walks += 1
        return super().__iter__()


class Changing(ClientRegistry):
    """The clients are what `now` says, as those of a file are."""

    def __init__(self, now: tuple[Client, ...]) -> None:
        super().__init__(clients=())
        self.now = now

    @property
    def clients(self) -> tuple[Client, ...]:
        return self.now


def clients_of(*keys: str) -> Counted:
    """A client for each key, named as it."""
    text = "".join(a_client(key, a_key(key, f"{key}-key")) for key in keys)
    around = Surroundings(environ=ENVIRON)
    return Counted(parse(text, name="clients.toml", around=around))


def test_a_request_does_not_go_through_all_clients() -> None:
    found = clients_of("acme", "globex", "local")
    registry = Changing(found)
    assert registry.by_key("acme-key") == (found[0], found[0].keys[0])
    walks = found.walks

    for _ in range(100):
        assert registry.by_key("local-key")
        assert registry.by_key("nobodys-key") is None
        assert registry.by_id("globex") is found[1]
        assert registry.has("local")
        assert not registry.has("newest")

    assert found.walks == walks


def test_after_a_change_the_new_keys_open_and_the_old_ones_do_not() -> None:
    registry = Changing(clients_of("acme", "globex"))
    assert registry.by_key("globex-key")

    registry.now = clients_of("acme", "local")

    assert registry.by_key("globex-key") is None
    assert not registry.has("globex")
    with pytest.raises(ConfigurationError, match="'globex' is not configured"):
        registry.by_id("globex")
    assert registry.by_key("local-key")
    assert registry.by_id("local") is registry.now[1]
