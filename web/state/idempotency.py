"""Idempotency of requests, by the header `Idempotency-Key`.

The ledger keeps the keys (`dispatcher/ledger/lua/create.lua`). While Redis is away each web process
remembers what it has delegated itself; the other processes do not know it.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from hashlib import sha256
from typing import Final

from cachetools import LRUCache
from flask import request

from dispatcher.domain.models import NewDispatch
from dispatcher.ledger.dispatches import Once
from web.contract.problems import Problem
from web.contract.request_schemas import MAX_IDEMPOTENCY_KEY_CHARS, TokenRequest

HEADER: Final = "Idempotency-Key"
MAX_KEPT: Final = 10_000
# With a publishable key any browser asks, and the same idempotency key leads to the same room: it
# must be as hard to guess as the room's name that it takes the place of.
MIN_PUBLIC_KEY_CHARS: Final = 32


def idempotency_key(*, public: bool) -> str | None:
    """Return the idempotency key of the present request, if it has one; a wrong one is a 422.

    With a publishable API key (`public`) it has to be long.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    at_least = MIN_PUBLIC_KEY_CHARS if public else 1
    right_size = at_least <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARS
    if not (right_size and key.isascii() and key.isprintable()):
        message = f"has to be {at_least} to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        if public:
            message += (
                " that nobody can guess (crypto.randomUUID()) with a publishable key: the same "
                "key enters the same room"
            )
        raise Problem(
            422,
            f"wrong fields: {HEADER}",
            errors=[{"field": HEADER, "message": message}],
        )
    return key


def conflict() -> Problem:
    """Make the answer to another request with a key that is taken."""
    return Problem(
        409,
        f"this {HEADER} came with another request before; take a new one for a new request",
    )


def once(key: str, wanted: TokenRequest, new: NewDispatch, identity: str, *, public: bool) -> Once:
    """Make what the ledger keeps of a request: digests, and the names that were made up for it.

    A backend's keys and a browser's are kept apart: a holder of the publishable API key must not
    get a backend's answer. No identity is kept for a browser: two browsers with one idempotency key
    would throw each other out of the room, so each repeat gets an identity of its own.
    """
    canonical = json.dumps(wanted.model_dump(mode="json"), sort_keys=True)
    kind = "publishable\n" if public else ""  # a header has no line feed in it
    return Once(
        key_digest=sha256(f"{kind}{key}".encode()).hexdigest(),
        request_digest=sha256(canonical.encode()).hexdigest(),
        room_name=new.room_name,
        identity="" if public else identity,
    )


class Delegations:
    """This process's answers without Redis to requests with an idempotency key; thread-safe."""

    def __init__(self) -> None:
        # By client and digest of the key: the dispatch, and the answer to repeat.
        self._kept: LRUCache[tuple[str, str], tuple[str, Once]] = LRUCache(MAX_KEPT)
        self._lock = threading.Lock()

    def keep(self, new: NewDispatch, asked: Once) -> None:
        """Remember that `asked` was answered with `new`."""
        answer = replace(asked, room_name=new.room_name)
        with self._lock:
            self._kept[new.client_id, asked.key_digest] = new.dispatch_id, answer

    def recall(self, new: NewDispatch, asked: Once) -> tuple[NewDispatch, Once]:
        """Return both as the same request was answered before, or unchanged.

        Raises:
            Problem: 409, another request had the same key.
        """
        with self._lock:
            kept = self._kept.get((new.client_id, asked.key_digest))
        if kept is None:
            return new, asked
        dispatch_id, answer = kept
        if answer.request_digest != asked.request_digest:
            raise conflict()
        return replace(new, dispatch_id=dispatch_id, room_name=answer.room_name), answer
