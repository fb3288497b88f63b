"""Does every process reach a Redis that wants TLS, a user and a password, and tell nobody?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import pytest
import redis

from devstack import PROJECT_ROOT
from devstack.servers import find_redis_server
from devstack.supervision import read_procfile
from devstack.testing import RunningStack, running_stack
from tests.conftest import free_port, process
from tests.tls import make_certificates, tls_front

from .session import Caller, wait_for
from .test_by_hand import celery
from .test_secrets import PROGRAMS, readable

USER = "usher"
# With everything that a URL must quote.
PASSWORD = "c4nary:pass/word@of?redis#100%"
# No more than Usher and Celery need: nothing that configures, stops or empties a Redis.
RIGHTS = "~* &* +@all -@admin -@dangerous +info"


@dataclass(frozen=True, kw_only=True)
class Secured:
    """A stack whose processes know Redis by TLS only, and that Redis, in the clear."""

    stack: RunningStack
    redis: redis.Redis
    tls_url: str


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("tls")
    port = free_port()
    config = directory / "redis.conf"
    config.write_text(
        f'bind 127.0.0.1\nport {port}\nsave ""\ndir {directory}\n'
        f"user default off\nuser {USER} on >{PASSWORD} {RIGHTS}\n"
        f"user looker on >looker ~* &* +@all\n"
    )
    certificates = make_certificates(directory)
    procfile = directory / "Procfile"
    procfile.write_text(
        "".join(
            f'{name}: export REDIS_URL="$USHER_TEST_REDIS_URL"; {command}\n'
            for name, command in read_procfile(PROJECT_ROOT / "Procfile").items()
        )
    )
    with (
        process(str(find_redis_server(os.environ)), str(config), log=directory / "redis.log"),
        tls_front(certificates, port) as tls_port,
        redis.Redis(port=port, username="looker", password="looker") as looker,
    ):
        url = f"rediss://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{tls_port}/0"
        url += f"?ssl_cert_reqs=required&ssl_ca_certs={certificates.authority}"
        environ = {"USHER_TEST_REDIS_URL": url}
        run_dir = tmp_path_factory.mktemp("stack")
        with running_stack(run_dir, environ=environ, procfile=procfile) as stack:
            yield Secured(stack=stack, redis=looker, tls_url=url)


def test_a_session_gets_its_agent_and_the_password_stays_inside(secured: Secured) -> None:
    stack = secured.stack
    caller = Caller(stack)
    with caller.http:
        answer = caller.post()
        caller.wait_for_state(answer["dispatch_id"], "joined", within_s=15)
        with redis.Redis.from_url(stack.redis_url) as unused:
            assert unused.dbsize() == 0, "somebody has used the Redis in the clear"
        users = {client["user"] for client in secured.redis.client_list()}
        assert users == {USER, "looker"}
        # An operator's own look, and Flower's: it asks Redis itself, for the lengths of queues.
        assert "pong" in celery(stack, "inspect", "ping", redis_url=secured.tls_url)
        pages = [_flower(stack, path) for path in ("/broker", "/workers", "/api/queues/length")]
        assert "dispatch" in pages[0]
        secured.redis.execute_command("ACL", "SETUSER", USER, "off")
        secured.redis.client_kill_filter(user=USER)
        answers = [
            wait_for("its absence", lambda: _not_ready(caller), within_s=10),
            caller.http.post("/api/v1/dispatches", json={}).text,
        ]
    texts = {f"log of {name}": stack.log(name) for name in PROGRAMS}
    texts |= {f"page {number}": text for number, text in enumerate(pages + answers)}
    for where, text in texts.items():
        for secret in (PASSWORD, quote(PASSWORD, safe="")):
            assert secret not in readable(text), where


def _flower(stack: RunningStack, path: str) -> str:
    page = httpx.get(
        stack.flower_url + path,
        auth=(stack.flower_user, stack.flower_password),
        timeout=10,
        trust_env=False,
    )
    assert page.status_code == 200, path
    return page.text


def _not_ready(caller: Caller) -> str | None:
    response = caller.http.get("/readyz")
    return response.text if "redis" in response.json()["not_ready"] else None
