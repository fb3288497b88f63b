"""How is a client found, by its id and by a key?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.clients import client_registry
from dispatcher.clients.client_registry import ClientRegistry, FileRegistry
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


def file_of(*keys: str) -> str:
    """The file of a client for each key, named as it."""
    return "".join(a_client(key, a_key(key, f"{key}-key")) for key in keys)


def test_a_request_does_not_go_through_all_clients() -> None:
    around = Surroundings(environ=ENVIRON)
    text = file_of("acme", "globex", "local")
    found = Counted(parse(text, name="clients.toml", around=around))
    registry = ClientRegistry(clients=found)
    assert registry.by_key("acme-key") == (found[0], found[0].keys[0])
    walks = found.walks

    for _ in range(100):
        assert registry.by_key("local-key")
        assert registry.by_key("nobodys-key") is None
        assert registry.by_id("globex") is found[1]
        assert registry.has("local")
        assert not registry.has("newest")

    assert found.walks == walks


def test_after_a_change_the_new_keys_open_and_the_old_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_registry, "LOOK_S", 0)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "clients.toml"
    path.write_text(file_of("acme", "globex"))
    registry = FileRegistry(path)
    assert registry.by_key("globex-key")

    path.write_text(file_of("acme", "local"))

    assert registry.by_key("globex-key") is None
    assert not registry.has("globex")
    with pytest.raises(ConfigurationError, match="'globex' is not configured"):
        registry.by_id("globex")
    assert registry.by_key("local-key")
    assert registry.by_id("local") is registry.clients[1]
