"""Does a secret leave? (Invariant I5.) A canary test: every place is searched for every secret."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import redis

from devstack.testing import RunningStack

from .session import ENDPOINT, Caller, end_rooms
from .test_by_hand import redispatch

# The logs of what Usher itself runs; Redis and LiveKit are other people's programs.
PROGRAMS = ("web", "dispatch", "verify", "beat", "agent", "flower")


def secrets_of(stack: RunningStack) -> dict[str, str]:
    password = urlsplit(stack.redis_url).password
    assert password
    return {
        "API key": stack.api_key,
        "LiveKit secret": stack.livekit_api_secret,
        "Redis password": password,
        "Flower password": stack.flower_password,
    }


def readable(text: str) -> str:
    """The text, and what its base64 says: Celery's message bodies are base64."""
    decoded = []
    for word in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", text):
        with contextlib.suppress(ValueError):
            decoded.append(base64.b64decode(word, validate=True).decode("utf-8", "ignore"))
    return "\n".join((text, *decoded))


def leaks(stack: RunningStack, where: str, text: str) -> list[str]:
    text = readable(text)
    found = [f"{name} in {where}" for name, value in secrets_of(stack).items() if value in text]
    if re.search(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", text):
        found.append(f"a JSON web token in {where}")
    return found


@contextmanager
def all_redis_commands(stack: RunningStack) -> Iterator[list[str]]:
    """Every command that any client sends to Redis meanwhile, Celery's messages among them."""
    seen: list[str] = []
    done = threading.Event()
    with redis.Redis.from_url(stack.redis_url) as client, client.monitor() as monitor:

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
            with redis.Redis.from_url(stack.redis_url) as other:
                other.ping()  # one more command, so that the listener sees that it is done
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


def test_no_secret_is_in_a_message_a_result_a_log_a_flower_page_or_an_error(
    stack: RunningStack, caller: Caller
) -> None:
    found: list[str] = []
    with all_redis_commands(stack) as commands:
        answer = caller.post(participant_name="Ann", participant_metadata="m")
        caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)
        redispatch(stack, answer["dispatch_id"])  # refused: a result and a traceback
        errors = [
            caller.http.post(ENDPOINT, content=b"{"),
            caller.http.post(ENDPOINT, json={"room_name": stack.api_key * 20}),
            caller.http.post(
                ENDPOINT, json={"participant_attributes": {"a": [answer["participant_token"]]}}
            ),
            caller.http.post(ENDPOINT, headers={"Authorization": f"Bearer {stack.api_key}x"}),
            caller.http.get(f"{ENDPOINT}/{stack.livekit_api_secret[:5]}"),
        ]
        end_rooms(stack, answer["room_name"])
        caller.wait_for_state(answer["dispatch_id"], "ended", within_s=10)
    published = [command for command in commands if "dispatch_agent" in command]
    assert answer["dispatch_id"] in readable(published[0]), "the Celery message was not seen"
    # Authenticating to Redis is the one command that must carry its password.
    for command in commands:
        if not command.upper().startswith(("AUTH", "HELLO")):
            found += leaks(stack, f"Redis command {command[:40]!r}", command)
    with redis.Redis.from_url(stack.redis_url) as client:
        for key in client.scan_iter():
            found += leaks(stack, f"Redis key {key!r}", f"{key!r} {dump(client, key)}")
    for name in PROGRAMS:
        found += leaks(stack, f"log of {name}", stack.log(name))
    for response in errors:
        assert response.status_code >= 400
        found += leaks(stack, f"error {response.status_code}", response.text)
    for path in ("/workers", "/tasks", "/broker", "/api/tasks", "/api/workers"):
        page = httpx.get(
            stack.flower_url + path,
            auth=(stack.flower_user, stack.flower_password),
            timeout=10,
            trust_env=False,
        )
        assert page.status_code == 200
        found += leaks(stack, f"Flower {path}", page.text)
    found += leaks(stack, "status", json.dumps(caller.record(answer["dispatch_id"])))
    assert found == []
