"""Does a secret leave? (Invariant I5.) A canary test: every place is searched for every secret.

The processes reach their Redis by TLS, as a user, with a password: that they do is seen here, too.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from tests.support.stacks import RunningStack

from .secured import (
    ACME_KEY,
    ACME_PAGE_KEY,
    GLOBEX_KEY,
    PAGE,
    REDIS_USER,
    Secured,
    secured_stack,
)
from .session import ENDPOINT, Caller, end_rooms, wait_for
from .test_by_hand import celery, redispatch

# The logs of what Usher itself runs; Redis and LiveKit are other people's programs.
PROGRAMS = ("web", "dispatch", "verify", "beat", "agent", "flower")
FLOWER_PAGES = (
    "/workers",
    "/tasks",
    "/broker",
    "/metrics",
    "/api/tasks",
    "/api/workers",
    "/api/queues/length",
)
IDEMPOTENCY_KEY = "c4nary-idempotency-key"
# A system prompt, a customer's record: the ledger has it, and the agent; nobody else.
METADATA = "c4nary-metadata-of-an-agent"
WRONG_KEY = "usk_c4nary-of-somebody-who-mistyped-it"
PUBLIC_PAGES = ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory, run_dir = tmp_path_factory.mktemp("secured"), tmp_path_factory.mktemp("stack")
    with secured_stack(directory, run_dir) as opened:
        yield opened


def readable(text: str) -> str:
    """The text, and what its base64 says: Celery's message bodies are base64."""
    decoded = []
    for word in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", text):
        with contextlib.suppress(ValueError):
            decoded.append(base64.b64decode(word, validate=True).decode("utf-8", "ignore"))
    return "\n".join((text, *decoded))


def leaks(secrets: Mapping[str, str], where: str, text: str) -> list[str]:
    text = readable(text)
    found = [f"{name} in {where}" for name, value in secrets.items() if value in text]
    if re.search(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", text):
        found.append(f"a JSON web token in {where}")
    return found


@contextmanager
def all_redis_commands(client: redis.Redis) -> Iterator[list[str]]:
    """Every command that any client sends to Redis meanwhile, Celery's messages among them."""
    seen: list[str] = []
    done = threading.Event()
    with client.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                seen.append(str(command["command"]))
                if done.is_set():
                    return

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield seen
        finally:
            done.set()
            client.ping()  # one more command, so that the listener sees that it is done
            listener.join(timeout=10)


def dump(client: redis.Redis, key: bytes) -> str:
    kind = client.type(key)
    if kind == b"string":
        return str(client.get(key))
    if kind == b"hash":
        return str(client.hgetall(key))
    if kind == b"list":
        return str(client.lrange(key, 0, -1))
    if kind == b"set":
        return str(client.smembers(key))
    return str(client.zrange(key, 0, -1))


def raw(stack: RunningStack, request: bytes) -> str:
    """What is answered to something that is hardly a request."""
    parts = urlsplit(stack.web_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer.decode("latin-1")


def refusals(stack: RunningStack, caller: Caller, token: str) -> list[httpx.Response]:
    """Answers to what is wrong, each with a secret in the question."""
    page = {"Authorization": f"Bearer {ACME_PAGE_KEY}", "Origin": PAGE}
    return [
        caller.http.post(ENDPOINT, content=b"{"),
        caller.http.post(ENDPOINT, json={"room_name": ACME_KEY * 20}),
        caller.http.post(ENDPOINT, json={"participant_attributes": {"a": [token]}}),
        caller.http.post(ENDPOINT, headers={"Authorization": f"Bearer {WRONG_KEY}"}),
        caller.http.get(f"{ENDPOINT}/{stack.livekit_api_secret[:5]}"),
        caller.http.get(ENDPOINT, headers=page),
        caller.http.post(ENDPOINT, headers=page | {"Origin": "https://elsewhere.example"}),
        caller.http.post(ENDPOINT, headers=page, json={"participant_identity": "boss"}),
        caller.http.post(ENDPOINT, headers={"Idempotency-Key": IDEMPOTENCY_KEY}, json={}),
        caller.http.post("/api/v1/webhooks/livekit", headers={"Authorization": token}),
        caller.http.get(f"{ENDPOINT}/dsp_x/events"),
    ]


def hardly_requests(stack: RunningStack) -> list[str]:
    """gunicorn's own logger would repeat all of these."""
    key = ACME_KEY.encode()
    return [
        raw(stack, b"GET /healthz HTTP/1.1\r\nAuthorization Bearer %b\r\n\r\n" % key),
        raw(stack, b"GET /healthz HTTP/1.1\r\nAuthorization: Bearer %b\x01\r\n\r\n" % key),
        raw(stack, b"Bearer %b\r\n\r\n" % key),
        raw(stack, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % key),
    ]


def flower_pages(stack: RunningStack) -> dict[str, str]:
    found = {}
    for path in FLOWER_PAGES:
        page = httpx.get(
            stack.flower_url + path,
            auth=(stack.flower_user, stack.flower_password),
            timeout=10,
            trust_env=False,
        )
        assert page.status_code == 200, path
        found[f"Flower {path}"] = page.text
    # It asks Redis itself for these; of which workers it knows by now is chance.
    assert re.search(r">\s*(dispatch|sweep|verify|webhooks)\s*<", found["Flower /broker"])
    return found


def test_no_secret_is_in_a_message_a_result_a_log_a_page_a_metric_or_an_error(
    secured: Secured,
) -> None:
    stack, client = secured.stack, secured.redis
    secrets = secured.secrets | {"wrong key": WRONG_KEY, "Idempotency-Key": IDEMPOTENCY_KEY}
    caller, other = Caller(stack, ACME_KEY), Caller(stack, GLOBEX_KEY)
    texts: dict[str, str] = {}
    with caller.http, other.http, all_redis_commands(client) as commands:
        secured.add_globex()
        asked: dict[str, object] = {"participant_name": "Ann", "participant_metadata": "m"}
        asked["room_config"] = {"agents": [{"metadata": METADATA}]}
        idempotent = {"Idempotency-Key": IDEMPOTENCY_KEY}
        answer = caller.http.post(ENDPOINT, json=asked, headers=idempotent).json()
        caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
        # Refused: a result and a traceback.
        redispatch(stack, answer["dispatch_id"], redis_url=secured.redis_url)
        wait_for(
            "the second client",
            lambda: other.http.get(ENDPOINT).status_code == 200 or None,
            within_s=30,
        )
        lost = other.post()["dispatch_id"]
        errors = refusals(stack, caller, answer["participant_token"])
        end_rooms(stack, answer["room_name"])
        caller.wait_for_state(answer["dispatch_id"], "ended", within_s=30)
        failed = other.wait_for_state(lost, "failed", within_s=30)
        assert failed["failure_reason"] == "livekit_unreachable"
        assert failed["timeline"][-1]["at_ms"] <= failed["deadline_at_ms"]
        wait_for(
            "an event that could not be delivered",
            lambda: "event" in stack.log("verify") or None,
            within_s=30,
        )
        texts |= {"status": json.dumps(caller.record(answer["dispatch_id"]))}
        texts |= {f"answer to GET {path}": caller.http.get(path).text for path in PUBLIC_PAGES}
        texts |= flower_pages(stack)
    published = [command for command in commands if "dispatch_agent" in command]
    assert answer["dispatch_id"] in readable(published[0]), "the Celery message was not seen"
    for response in errors:
        assert response.status_code >= 400
        texts[f"error {response.status_code} {response.url.path}"] = str(response.headers) + (
            response.text
        )
    for number, text in enumerate(hardly_requests(stack)):
        assert text.startswith("HTTP/1.1 40"), text
        texts[f"answer {number} to hardly a request"] = text
    texts |= {f"log of {name}": stack.log(name) for name in PROGRAMS}
    found = [leak for where, text in texts.items() for leak in leaks({"it": METADATA}, where, text)]
    assert found == []
    for key in client.scan_iter():
        texts[f"Redis key {key!r}"] = f"{key!r} {dump(client, key)}"
    having_it = {where for where, text in texts.items() if METADATA in text}
    record = f"usher:dispatch:{answer['dispatch_id']}".encode()
    assert having_it == {f"Redis key {record!r}"}
    # Authenticating to Redis is the one command that must carry its password.
    for command in commands:
        if not command.upper().startswith(("AUTH", "HELLO")):
            texts[f"Redis command {command[:60]!r}"] = command
    found = [leak for where, text in texts.items() for leak in leaks(secrets, where, text)]
    assert found == []


def test_every_process_reaches_redis_by_tls_alone_and_an_outage_tells_nobody_the_password(
    secured: Secured,
) -> None:
    stack = secured.stack
    with redis.Redis.from_url(stack.redis_url) as unused:
        assert unused.dbsize() == 0, "somebody has used the stack's Redis in the clear"
    users = {client["user"] for client in secured.redis.client_list()}
    assert users == {REDIS_USER, "looker"}
    assert "pong" in celery(
        stack, "inspect", "ping", "--timeout", "15", redis_url=secured.redis_url
    )
    secured.redis.execute_command("ACL", "SETUSER", REDIS_USER, "off")
    secured.redis.client_kill_filter(user=REDIS_USER)
    caller = Caller(stack, ACME_KEY)
    with caller.http:

        def not_ready() -> str | None:
            response = caller.http.get("/readyz")
            return response.text if "redis" in response.json()["not_ready"] else None

        texts = {"/readyz": wait_for("its absence", not_ready, within_s=30)}
        texts["refusal"] = caller.http.get(ENDPOINT).text
    texts |= {f"log of {name}": stack.log(name) for name in PROGRAMS}
    secrets = secured.secrets
    assert [leak for where, text in texts.items() for leak in leaks(secrets, where, text)] == []
