"""Is what a request says what the application gets to see, and is nothing odd let through?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from web.http1 import MAX_FIELD_BYTES, MAX_FIELDS, MAX_TARGET_BYTES, Answer, Refused, Request
from web.incoming import Incoming

CLIENT, SERVER = ("192.0.2.7", 4711), ("127.0.0.1", 8080)
HOST = b"Host: usher.example\r\n"


def environ_of(head: bytes, body: bytes = b"") -> dict[str, Any]:
    return Request(head + b"\r\n" + body).environ(CLIENT, SERVER)


def test_an_application_sees_what_was_asked() -> None:
    head = b"POST /a%20b%C3%A9/c?x=1&y=%20 HTTP/1.1\r\n" + HOST
    head += b"Content-Type: application/json\r\nContent-Length: 2\r\nX-Two:  1 \r\nX-Two: 2\r\n"
    environ = environ_of(head, b"{}")

    assert environ["wsgi.input"].read() == b"{}"
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b\u00c3\u00a9/c",  # as PEP 3333 has it: bytes as latin-1
        "QUERY_STRING": "x=1&y=%20",
        "RAW_URI": "/a%20b%C3%A9/c?x=1&y=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "2",
        "HTTP_HOST": "usher.example",
        "HTTP_X_TWO": "1,2",
        "wsgi.url_scheme": "http",
    }
    assert {name: environ.get(name) for name in expected} == expected


def test_a_caller_by_a_unix_socket_has_no_address() -> None:
    environ = Request(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n").environ("", "/run/usher.sock")
    assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"]) == ("", "")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/healthz", "/healthz", ""),
        (b"/x?a?b", "/x", "a?b"),
        (b"/x#f?a", "/x", ""),
        (b"//x/y", "//x/y", ""),
        (b"http://elsewhere/x?a=1", "/x", "a=1"),
    ],
)
def test_a_target_is_split_into_path_and_query(target: bytes, path: str, query: str) -> None:
    environ = environ_of(b"GET " + target + b" HTTP/1.1\r\n" + HOST)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)


def test_chunks_are_one_body_and_trailers_are_no_headers() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
    environ = environ_of(
        head, b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 1\r\nAuthorization: no\r\n\r\n"
    )
    assert environ["wsgi.input"].read() == b"abcde"
    assert "HTTP_X_SUM" not in environ
    assert "HTTP_AUTHORIZATION" not in environ


UPGRADE = b"POST / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\n"
UPGRADE += b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 2\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_who_would_rather_speak_http2_is_answered_in_http1(framed: bytes) -> None:
    """Java's HttpClient asks so, with a body, unless it is told otherwise."""
    incoming = Incoming(UPGRADE + framed)
    assert incoming.whole
    assert not incoming.asks_to_continue
    environ = Request(incoming.take()[0]).environ(CLIENT, SERVER)
    assert environ["wsgi.input"].read() == b"{}"
    assert "HTTP_UPGRADE" not in environ
    with pytest.raises(Refused):  # never read as a request without its body
        Request(UPGRADE + framed)


def test_a_name_with_an_underscore_does_not_pass_for_another() -> None:
    environ = environ_of(b"GET / HTTP/1.1\r\n" + HOST + b"X_Forwarded_For: 1.2.3.4\r\n")
    assert "HTTP_X_FORWARDED_FOR" not in environ


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST, 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/0.9\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0x2\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + CHUNKED + b"\r\nzz\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + CHUNKED + b"\r\n3\r\nabc\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: odd\r\n\r\n", 501),
        (b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * (MAX_FIELDS + 1) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_FIELD_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nExpect: more\r\n\r\n", 417),
    ],
)
def test_what_is_not_one_whole_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        Request(data).environ(CLIENT, SERVER)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", False),
        (b"CONNECT x:1 HTTP/1.1\r\n", False),
    ],
)
def test_whether_there_may_be_another_request_after_it(head: bytes, keep: bool) -> None:
    assert Request(head + b"\r\n").keep is keep


class App:
    """Answers what it is told to."""

    def __init__(self, status: str, headers: list[tuple[str, str]], *body: bytes) -> None:
        self.said = status, headers, body
        self.closed = False

    def __call__(self, _: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response(*self.said[:2])
        return self

    def __iter__(self) -> Any:
        return iter(self.said[2])

    def close(self) -> None:
        self.closed = True


def answered(app: App, method: bytes = b"GET", *, keep: bool = True) -> tuple[bytes, bytes]:
    request = Request(method + b" / HTTP/1.1\r\n\r\n")
    answer = Answer(request, app, request.environ(CLIENT, SERVER), lambda _: None)
    head, _, body = answer.as_bytes(keep=keep).partition(b"\r\n\r\n")
    return head, body


def test_an_answer_has_its_length_and_says_whether_there_may_be_another_request() -> None:
    app = App("200 OK", [("X-A", "\u00e9"), ("Connection", "upgrade")], b"ab", b"c")
    head, body = answered(app)
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"X-A: \xe9", b"Content-Length: 3", b"Connection: keep-alive"} <= set(lines)
    assert not any(line.startswith(b"Connection: upgrade") for line in lines)
    assert body == b"abc"
    assert app.closed
    assert b"Connection: close" in answered(App("200 OK", []), keep=False)[0].split(b"\r\n")


@pytest.mark.parametrize(
    ("status", "method", "length"),
    [
        ("204 No Content", b"GET", []),
        ("304 Not Modified", b"GET", []),
        ("200 OK", b"HEAD", [b"Content-Length: 3"]),
    ],
)
def test_an_answer_that_has_no_body_has_none(
    status: str, method: bytes, length: list[bytes]
) -> None:
    head, body = answered(App(status, [], b"abc"), method)
    assert body == b""
    assert [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")] == length


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb"])
def test_a_header_with_a_line_break_is_never_sent(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        answered(App("200 OK", [("X-A", value)]))


def test_a_length_that_is_not_the_bodys_is_never_sent() -> None:
    with pytest.raises(ValueError, match="the length that it says"):
        answered(App("200 OK", [("Content-Length", "2")], b"abc"))


def writing(*parts: bytes, length: int | None) -> list[bytes]:
    """What is there, each time that an answer that is written in these parts is called whole."""
    seen: list[bytes] = []

    def app(_: object, start_response: Callable[..., Callable[[bytes], object]]) -> list[bytes]:
        fields = [] if length is None else [("Content-Length", str(length))]
        write = start_response("200 OK", fields)
        for part in parts:
            write(part)
        return []

    request = Request(b"GET / HTTP/1.1\r\n\r\n")
    Answer(
        request,
        app,
        request.environ(CLIENT, SERVER),
        lambda answer: seen.append(answer.as_bytes(keep=True).partition(b"\r\n\r\n")[2]),
    )
    return seen


def test_an_answer_that_is_written_may_be_sent_as_soon_as_it_is_whole() -> None:
    assert writing(b"ab", b"c", length=3) == [b"abc"]
    assert writing(b"abc", b"", length=3) == [b"abc"]  # once
    assert writing(b"ab", length=3) == []
    assert writing(b"abc", length=None) == []  # more may come
