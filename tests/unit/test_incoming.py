"""When is a request whole, however its bytes arrive?"""

from __future__ import annotations

import pytest
from werkzeug.exceptions import RequestEntityTooLarge

from tests.unit.test_http1 import CLIENT, SERVER
from web.http1 import Refused, Request
from web.incoming import MAX_BODY_BYTES, Incoming

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
WITH_BODY = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345"
CHUNKS = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKS + b"3\r\nabc\r\n2;x=y\r\n\r\n\r\n0\r\n\r\n"
TRAILERS = CHUNKS + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
# A chunk that holds what looks like the last one.
TRICK = CHUNKS + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_", [GET, WITH_BODY, CHUNKED, TRAILERS, TRICK])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_it_is_whole_with_its_last_byte_and_not_before(request_: bytes, step: int) -> None:
    incoming = Incoming()
    for at in range(0, len(request_), step):
        assert not incoming.whole
        incoming.feed(request_[at : at + step])
    assert incoming.whole
    assert not incoming.too_large
    assert incoming.take() == (request_, b"")


def test_what_follows_is_kept_for_the_next_one() -> None:
    incoming = Incoming(GET + GET[:10])
    assert incoming.whole
    assert incoming.take() == (GET, GET[:10])


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        CHUNKS + b"5F5E100\r\n",
        CHUNKS + b"7A120\r\n" + b" " * 500_000 + b"\r\n7A121\r\n",
        CHUNKS + b"1\r\n1\r\n" * (MAX_BODY_BYTES // 2),
    ],
)
def test_a_body_that_is_too_large_is_not_waited_for(head: bytes) -> None:
    incoming = Incoming(head)
    assert incoming.whole
    assert incoming.too_large
    given, rest = incoming.take()
    assert given.endswith(b"\r\n\r\n"), "some of the body was given to the application"
    assert given.count(b"\r\n\r\n") == 1
    assert rest == b""
    request = Request(given, too_large=True)
    assert not request.keep, "the rest of the body would be taken for the next request"
    with pytest.raises(RequestEntityTooLarge):
        request.environ(CLIENT, SERVER)["wsgi.input"].read()


def test_the_largest_body_is_waited_for() -> None:
    incoming = Incoming(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES)
    assert not incoming.whole


@pytest.mark.parametrize(
    ("odd", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
        (CHUNKS + b"zz\r\n", 400),
        (CHUNKS + b"a" * 9_000, 400),
        (CHUNKS + b"-1\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    ],
)
def test_what_is_odd_is_not_waited_for_and_nothing_is_made_up(odd: bytes, status: int) -> None:
    incoming = Incoming(odd)
    assert incoming.whole
    assert incoming.take() == (odd, b"")
    with pytest.raises(Refused) as refused:
        Request(odd)
    assert refused.value.status == status


def test_who_waits_to_be_told_to_continue_is_seen_and_the_parser_is_not_told() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    incoming = Incoming(head)
    assert incoming.asks_to_continue
    assert not incoming.whole
    incoming.feed(b"{}")
    assert incoming.whole
    assert incoming.take() == (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"")
