"""Limits that are checked before a dispatch is created: body, wrong keys, wrong passwords.

Requests per minute and sessions at once are counted in Redis, together with the record's write
(`dispatcher/ledger/lua/create.lua`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
import threading
import time
from collections.abc import Iterator
from typing import Final

from cachetools import TLRUCache
from werkzeug.exceptions import HTTPException

from dispatcher.domain.models import Limits
from dispatcher.errors import LedgerUnavailable, LimitReached
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.client import Ledger
from web.contract.problems import Problem

MAX_JSON_DEPTH: Final = 32
# Wrong keys that one address may show in a minute. Guessing one of 256 bits is hopeless at any
# rate; this keeps the guesser's requests cheap. Right keys pass: other callers may share the
# address (an office, a proxy).
MAX_WRONG_KEYS: Final = 20
WRONG_KEYS_WINDOW_S: Final = 60.0
_MAX_ADDRESSES: Final = 10_000
# Wrong operator's passwords from one address in a minute; after those no more are checked.
MAX_WRONG_PASSWORDS: Final = 10
# A larger body is parsed only for a client within its limits: it takes 20 ms and not 20 us.
LARGE_BYTES: Final = 200_000
# Limits may be raised at any time.
_MOST_KEPT_S: Final = 1.0

# A string to its end, or to the end of the text: never a second look at the same byte.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_OTHERS: Final = bytes(set(range(256)) - set(b"{}[]"))


def check_depth(body: bytes) -> None:
    """Refuse JSON that is nested too deeply with a 400, before a parser sees it."""
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _OTHERS)
    for _ in range(MAX_JSON_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise Problem(
            400,
            f"the body is nested deeper than {MAX_JSON_DEPTH} levels, or its brackets do not match",
        )


@contextlib.contextmanager
def refusals_counted(store: Ledger, client_id: str, limits: Limits) -> Iterator[None]:
    """Count a request that is refused within the block as one of the client's requests.

    Raises `LimitReached` instead of the refusal when the client has used up its requests.
    """
    try:
        yield
    except (Problem, HTTPException):
        if limits.requests_per_minute:
            with contextlib.suppress(LedgerUnavailable):
                store.run(dispatches.count_request(client_id, limits))
        raise


def check_large(store: Ledger, client_id: str, limits: Limits, body: bytes) -> None:
    """Raise `LimitReached` for a large body when the client has used up its requests."""
    if limits.requests_per_minute and len(body) > LARGE_BYTES:
        with contextlib.suppress(LedgerUnavailable):
            store.run(dispatches.count_request(client_id, limits, only_look=True))


class SpentRequests:
    """Clients that have used up their requests, each until it may send one more; thread-safe.

    This process refuses them by itself (`docs/decisions/0138-what-a-tenants-loop-costs.md`).
    """

    def __init__(self) -> None:
        self._spent: dict[tuple[str, bool], tuple[float, str]] = {}

    def note(self, client_id: str, *, public: bool, refused: LimitReached) -> None:
        """Keep a refusal, if it is for all requests of these keys; for a second at the most."""
        if refused.spent:
            until = time.monotonic() + min(refused.retry_after_s, _MOST_KEPT_S)
            self._spent[client_id, public] = until, str(refused)

    def check(self, client_id: str, *, public: bool) -> None:
        """Raise `LimitReached` when Redis has said so a moment ago."""
        until, why = self._spent.get((client_id, public), (0.0, ""))
        if (left_s := until - time.monotonic()) > 0:
            raise LimitReached(why, retry_after_s=left_s)


def _until(_address: str, wrong_keys: tuple[int, float], _now: float) -> float:
    """Return until when so many wrong keys count."""
    return wrong_keys[1]


class WrongKeys:
    """Counts wrong keys by address, in this process; thread-safe, and of bounded size."""

    def __init__(self, most: int = MAX_WRONG_KEYS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._seen: TLRUCache[str, tuple[int, float]] = TLRUCache(_MAX_ADDRESSES, ttu=_until)

    def one_more(self, address: str) -> int:
        """Note one; return the seconds to wait when it is one too many, else 0."""
        place, now = _place(address), time.monotonic()
        with self._lock:
            count, until = self._seen.get(place, (0, now + WRONG_KEYS_WINDOW_S))
            self._seen[place] = count + 1, until
        return math.ceil(until - now) if count >= self._most else 0

    def wait_s(self, address: str) -> int:
        """Return the seconds to wait when there have been too many, else 0; note nothing."""
        with self._lock:
            count, until = self._seen.get(_place(address), (0, 0.0))
        return math.ceil(until - time.monotonic()) if count >= self._most else 0


class WrongPasswords:
    """Locks an address out after too many wrong operator's passwords; thread-safe.

    They are counted in Redis for all web processes, and in this process while Redis is away.
    """

    def __init__(self, store: Ledger) -> None:
        self._store = store
        self._here = WrongKeys(MAX_WRONG_PASSWORDS)

    def attempt(self, address: str, *, right: bool) -> int:
        """Note an attempt; return the seconds to wait after too many wrong ones, else 0.

        When there is a wait, the answer must not tell whether the password was right.
        """
        if wait_s := self._here.wait_s(address):
            return wait_s
        place = _place(address)
        with contextlib.suppress(LedgerUnavailable):
            wait_ms = self._store.run(
                reports.password_attempt(
                    place, most=MAX_WRONG_PASSWORDS, within_s=WRONG_KEYS_WINDOW_S
                )
            )
            if wait_ms:
                return max(1, math.ceil(wait_ms / 1000))
            if right:
                self._store.run(reports.password_right(place))
        if not right:
            self._here.one_more(address)
        return 0


def _place(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64, which is usually all one caller's."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if ip.version == 4 else str(ipaddress.ip_network((int(ip), 64), strict=False))
