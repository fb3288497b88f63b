"""Clients files for tests, and applications that are opened with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dispatcher.clients.registry import registry
from web import create_app

LIVEKIT_SECRET = "a-livekit-secret-of-at-least-32-characters"
# Each client has a secret of its own; acme's is the one above.
ENVIRON = {"TEST_LIVEKIT_SECRET": LIVEKIT_SECRET} | {
    f"{client_id}_LIVEKIT_SECRET": f"{client_id}-{LIVEKIT_SECRET}"
    for client_id in ("b", "first", "globex", "local", "newest", "one", "two")
}


# Opens the application for given clients; keyword arguments are environment variables.
Open = Callable[..., FlaskClient]


def digest(key: str) -> str:
    """Return the digest of a key, which the file keeps in place of the key."""
    return sha256(key.encode()).hexdigest()


def a_key(client_id: str, key: str, *, kind: str = "secret", more: str = "") -> str:
    """Make the table of one key of a client; its id is the key itself."""
    return f"""
[[clients.{client_id}.keys]]
id = "{key}"
kind = "{kind}"
sha256 = "{digest(key)}"
{more}
"""


def a_client(
    client_id: str = "acme",
    *keys: str,
    url: str = "",
    agents: str = '["helper"]',
    secret: str = "",
    more: str = "",
) -> str:
    """Make the table of one client, on a LiveKit server that does not run, with its keys."""
    own = f"{client_id}_LIVEKIT_SECRET"
    secret = secret or f"env:{own if own in ENVIRON else 'TEST_LIVEKIT_SECRET'}"
    return f"""
[clients.{client_id}]
livekit_url = "{url or f"wss://{client_id}.example"}"
livekit_api_key = "{client_id}-livekit-key"
livekit_api_secret = "{secret}"
agent_names = {agents}
{more}
{"".join(keys)}"""


def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open applications, each with its clients in `clients.toml`; close them at the end."""
    opened = []

    def open_(clients: str, **environ: str) -> FlaskClient:
        path = tmp_path / "clients.toml"
        path.write_text(clients)
        for name, value in {**ENVIRON, "USHER_CLIENTS_FILE": str(path), **environ}.items():
            monkeypatch.setenv(name, value)
        registry.cache_clear()
        app = create_app()
        registry.cache_clear()
        opened.append(app)
        return app.test_client()

    yield open_
    for app in opened:
        app.extensions["usher"].promises.close()
        app.extensions["usher"].key_uses.close()
