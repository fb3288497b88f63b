"""How does a test get a stack with every kind of secret that there is, each of them known?

Two clients, each with keys, a LiveKit secret and a webhook secret of its own; and a Redis that
wants TLS, a user and a password from every process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from devstack import PROJECT_ROOT
from devstack.servers import find_redis_server
from devstack.supervision import read_procfile
from tests.conftest import PATIENT, free_port, process
from tests.support.clientsfile import digest
from tests.support.stacks import RunningStack, running_stack
from tests.support.tls import make_certificates, tls_front

PAGE = "https://app.acme.example"
ACME_KEY, ACME_PAGE_KEY = "usk_c4nary-acme-secret-key", "upk_c4nary-acme-publishable-key"
GLOBEX_KEY = "usk_c4nary-globex-secret-key"
GLOBEX_LIVEKIT_SECRET = "c4nary-globex-livekit-secret-of-some-length"
ACME_HOOK_SECRET = "whsec_" + "YzRuYXJ5LWFjbWUtd2ViaG9vay1zZWNyZXQtMzIh"  # pragma: allowlist secret
GLOBEX_HOOK_SECRET = "whsec_" + "YzRuYXJ5LWdsb2JleC13ZWJob29rLXNlY3JldCEh"
HOOK_TOKEN = "c4nary-in-a-webhook-address"
REDIS_USER = "usher"
# With everything that a URL must quote.
REDIS_PASSWORD = "c4nary:pass/word@of?redis#100%"
# No more than Usher and Celery need: nothing that configures, stops or empties a Redis.
_RIGHTS = "~* &* +@all -@admin -@dangerous +info"


@dataclass(frozen=True, kw_only=True)
class Secured:
    """The stack; its Redis in the clear, as somebody else; and how its processes reach that."""

    stack: RunningStack
    redis: redis.Redis
    redis_url: str
    clients: Path

    @property
    def secrets(self) -> dict[str, str]:
        """Everything that must not be found anywhere."""
        return {
            "secret key": ACME_KEY,
            "publishable key": ACME_PAGE_KEY,
            "the other's key": GLOBEX_KEY,
            "LiveKit secret": self.stack.livekit_api_secret,
            "the other's LiveKit secret": GLOBEX_LIVEKIT_SECRET,
            "webhook secret": ACME_HOOK_SECRET.removeprefix("whsec_"),
            "the other's webhook secret": GLOBEX_HOOK_SECRET.removeprefix("whsec_"),
            "webhook address": HOOK_TOKEN,
            "Redis password": REDIS_PASSWORD,
            "Redis password as in its URL": quote(REDIS_PASSWORD, safe=""),
            "Flower password": self.stack.flower_password,
            "operator's password": self.stack.operator_password,
        }

    def add_globex(self) -> None:
        """The second client, whose LiveKit and whose own server are not there."""
        text = self.clients.read_text() + _entry(
            self.clients.parent,
            "globex",
            livekit=f'livekit_url = "ws://127.0.0.1:{free_port()}"\nlivekit_api_key = "globex-key"',
            livekit_secret=GLOBEX_LIVEKIT_SECRET,
            hook_secret=GLOBEX_HOOK_SECRET,
            keys={GLOBEX_KEY: "secret"},
        )
        changed = self.clients.with_suffix(".new")
        changed.write_text(text)
        changed.replace(self.clients)


def _entry(
    directory: Path,
    client_id: str,
    *,
    livekit: str,
    livekit_secret: str,
    hook_secret: str,
    keys: dict[str, str],
) -> str:
    files = {"livekit": livekit_secret, "hook": hook_secret}
    for name, secret in files.items():
        (directory / f"{client_id}-{name}").write_text(secret)
    tables = "".join(
        f'[[clients.{client_id}.keys]]\nid = "key-{number}"\nkind = "{kind}"\n'
        f'sha256 = "{digest(key)}"\n'
        for number, (key, kind) in enumerate(keys.items())
    )
    return f"""
[clients.{client_id}]
{livekit}
livekit_api_secret = "file:{directory}/{client_id}-livekit"
agent_names = ["session-agent-rag"]
deadline_s = {20 if client_id == "acme" else 5}
origins = ["{PAGE if client_id == "acme" else "https://app.globex.example"}"]
webhook_url = "http://127.0.0.1:{free_port()}/hooks?token={HOOK_TOKEN}"
webhook_secret = "file:{directory}/{client_id}-hook"
{tables}"""


@contextmanager
def secured_stack(directory: Path, run_dir: Path) -> Iterator[Secured]:
    """Such a stack, ready; its second client has to be added, since it would never be ready."""
    if not shutil.which("openssl"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no openssl here")
    port, livekit_port = free_port(), free_port()
    (directory / "redis.conf").write_text(
        f'bind 127.0.0.1\nport {port}\nsave ""\ndir {directory}\n'
        f"user default off\nuser {REDIS_USER} on >{REDIS_PASSWORD} {_RIGHTS}\n"
        "user looker on >looker ~* &* +@all\n"
    )
    procfile = directory / "Procfile"
    procfile.write_text(
        "".join(
            f'{name}: export REDIS_URL="$USHER_TEST_REDIS_URL"; {command}\n'
            for name, command in read_procfile(PROJECT_ROOT / "Procfile").items()
        )
    )
    certificates = make_certificates(directory)
    clients = directory / "clients.toml"
    binary = str(find_redis_server(os.environ))
    with (
        process(binary, str(directory / "redis.conf"), log=directory / "redis.log"),
        tls_front(certificates, port) as tls_port,
        redis.Redis(port=port, username="looker", password="looker") as looker,
    ):
        url = f"rediss://{REDIS_USER}:{quote(REDIS_PASSWORD, safe='')}@127.0.0.1:{tls_port}/0"
        url += f"?ssl_cert_reqs=required&ssl_ca_certs={certificates.authority}"
        # The stack makes LiveKit's secret; the file names the variable that it is in.
        clients.write_text(
            _entry(
                directory,
                "acme",
                livekit=f'livekit_url = "ws://127.0.0.1:{livekit_port}"\n'
                'livekit_api_key = "env:LIVEKIT_API_KEY"',
                livekit_secret="",
                hook_secret=ACME_HOOK_SECRET,
                keys={ACME_KEY: "secret", ACME_PAGE_KEY: "publishable"},
            ).replace(f"file:{directory}/acme-livekit", "env:LIVEKIT_API_SECRET")
        )
        environ = {
            **PATIENT,
            "USHER_TEST_REDIS_URL": url,
            "USHER_CLIENTS_FILE": str(clients),
            "USHER_LIVEKIT_PORT": str(livekit_port),
            "USHER_WEBHOOK_ALLOW_PRIVATE": "true",
            "USHER_WEBHOOK_WAITS_S": "0.2,0.2",
        }
        with running_stack(run_dir, environ=environ, procfile=procfile) as stack:
            yield Secured(stack=stack, redis=looker, redis_url=url, clients=clients)
