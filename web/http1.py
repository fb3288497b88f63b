"""What does a whole request say, and how is its answer written?

The bytes are parsed by llhttp, Node.js's parser, in httptools' binding, and made into a WSGI
environment (PEP 3333). What llhttp leaves open is refused as gunicorn's own parser refuses it,
which is written in Python and takes four to five times as long (docs/decisions.md).
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from gunicorn import SERVER
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from werkzeug.exceptions import RequestEntityTooLarge

from web.incoming import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

MAX_TARGET_BYTES: Final = 4_094
MAX_FIELD_BYTES: Final = 8_190
MAX_FIELDS: Final = 100

_VERSIONS: Final = ("1.0", "1.1")
# Those of RFC 9112, 7, in any order.
_CODINGS: Final = re.compile(
    rb"(?i:[\s,]|chunked|identity|gzip|x-gzip|deflate|compress|x-compress)*"
)
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_NO_BODY: Final = ("204", "304")
# By RFC 9112 and PEP 3333 these are the server's, not the application's.
_OURS: Final = frozenset({"connection", "transfer-encoding", "date", "server"})


class Refused(Exception):
    """This is not a request that an application can be asked to answer."""

    def __init__(self, status: HTTPStatus, what: str) -> None:
        super().__init__(what)
        self.status = status


class _TooLarge(io.RawIOBase):
    """A body that has not been waited for."""

    def read(self, size: int = -1, /) -> bytes:
        raise RequestEntityTooLarge

    def readable(self) -> bool:
        return True


class Request:
    """A request as llhttp has told it."""

    def __init__(self, data: bytes, *, too_large: bool = False) -> None:
        """Parse what is one whole request, or the head of one that is too large.

        Raises:
            Refused: it is not HTTP/1.0 or 1.1, it is more or less than one request, or something in
                it is longer than we take.
        """
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._in_head = True
        self._begun = 0
        self._ended = 0
        self._too_large = too_large
        self.keep = False
        self._parser = HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as error:
            self.keep = False  # what comes then is not ours to read
            if error.args[0] < len(data):
                raise Refused(HTTPStatus.BAD_REQUEST, "not one whole request") from None
        except HttpParserError as error:
            raise Refused(self._status_of_error(), type(error).__name__) from None
        self._check_lengths(len(data))
        if self._in_head or (self._begun, self._ended) != (1, 0 if too_large else 1):
            raise Refused(HTTPStatus.BAD_REQUEST, "not one whole request")
        self.version = self._parser.get_http_version()
        if self.version not in _VERSIONS:
            raise Refused(HTTPStatus.BAD_REQUEST, "version")
        if not _TARGET.fullmatch(self._target):
            raise Refused(HTTPStatus.BAD_REQUEST, "target")

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._begun += 1

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers are nobody's
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.keep = self._parser.should_keep_alive() and not self._too_large

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._ended += 1

    def _status_of_error(self) -> HTTPStatus:
        """RFC 9112, 6.1: a coding that we do not know is not the caller's fault."""
        for name, value in self._fields:
            if name.lower() == b"transfer-encoding" and not _CODINGS.fullmatch(value.strip()):
                return HTTPStatus.NOT_IMPLEMENTED
        return HTTPStatus.BAD_REQUEST

    def _check_lengths(self, length: int) -> None:
        if len(self._target) > MAX_TARGET_BYTES:
            raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "target")
        if len(self._fields) > MAX_FIELDS or (self._in_head and length > MAX_HEAD_BYTES):
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "fields")

    def environ(self, client: Any, server: Any) -> WSGIEnvironment:
        """What an application gets to see of it; to be asked for once.

        Args:
            client: the caller's address, as its socket has it.
            server: ours.

        Raises:
            Refused: a field is too long, or expects what we do not do.
        """
        self.method = self._parser.get_method().decode("ascii")
        path, query = self._path_and_query()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "RAW_URI": self._target.decode("ascii"),
            "SERVER_PROTOCOL": f"HTTP/{self.version}",
            **_address("SERVER_NAME", "SERVER_PORT", server),
            **_address("REMOTE_ADDR", "REMOTE_PORT", client),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": _TooLarge() if self._too_large else io.BytesIO(b"".join(self._body)),
            "wsgi.input_terminated": True,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, value in self._fields:
            if len(name) + len(value) > MAX_FIELD_BYTES:
                raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "field")
            if b"_" in name:
                continue  # somebody's X_Forwarded_For would pass for the proxy's
            key = name.decode("ascii").upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            text = value.decode("latin-1").strip(" \t")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        if "HTTP_EXPECT" in environ:
            raise Refused(HTTPStatus.EXPECTATION_FAILED, "expect")
        if "HTTP_TRANSFER_ENCODING" in environ and self.version == "1.0":
            raise Refused(HTTPStatus.BAD_REQUEST, "chunks in HTTP/1.0")
        return environ

    def _path_and_query(self) -> tuple[str, str]:
        target = self._target.decode("ascii")
        if not target.startswith("/"):
            parts = urlsplit(target)
            target = f"{parts.path}?{parts.query}"
        path, _, query = target.partition("#")[0].partition("?")
        if "%" in path:
            path = unquote_to_bytes(path).decode("latin-1")
        return path, query


def _address(name: str, port: str, of: Any) -> dict[str, str]:
    """Both parts; a Unix socket has neither."""
    return {name: of[0], port: str(of[1])} if isinstance(of, tuple) else {name: "", port: ""}


class Answer:
    """What an application answers, collected: nothing is sent before all of it is there."""

    def __init__(
        self,
        request: Request,
        app: WSGIApplication,
        environ: WSGIEnvironment,
        early: Callable[[Answer], None],
    ) -> None:
        """Have `app` answer it.

        Args:
            early: called as soon as all of it is there, where the application has written it and
                goes on working (PEP 3333, `write`).

        Raises:
            ValueError: a field has a line break in it.
        """
        self.status = ""
        self.is_whole = False
        self._early = early
        self._request = request
        self._head = ""
        self._length: str | None = None
        self._body: list[bytes] = []
        said = app(environ, self._start)
        try:
            self._body += said
        finally:
            if close := getattr(said, "close", None):
                close()

    def _start(
        self, status: str, fields: list[tuple[str, str]], _: object = None, /
    ) -> Callable[[bytes], object]:
        """Called once more where another answer is given instead (`web/hoped.py`)."""
        self.status = status
        self._length = None
        lines = [f"HTTP/1.1 {status}", f"Server: {SERVER}", f"Date: {_date(int(time.time()))}"]
        for name, value in fields:
            lowered = name.lower()
            if lowered == "content-length":
                self._length = value
            elif lowered not in _OURS:
                lines.append(f"{name}: {value}")
        self._head = "\r\n".join(lines)
        breaks = len(lines) - 1
        if self._head.count("\n") != breaks or self._head.count("\r") != breaks:
            raise ValueError("a line break in a field of the answer")
        return self._write

    def _write(self, data: bytes) -> None:
        self._body.append(data)
        if not self.is_whole and self._length == str(sum(map(len, self._body))):
            self.is_whole = True
            self._early(self)

    def as_bytes(self, *, keep: bool) -> bytes:
        """The whole answer, as it is sent.

        Raises:
            ValueError: it says another length than its body has.
        """
        body = b"".join(self._body)
        connection = "keep-alive" if keep else "close"
        head = f"{self._head}\r\nConnection: {connection}\r\n"
        if self.status[:3] in _NO_BODY:
            return f"{head}\r\n".encode("latin-1")
        length = str(len(body)) if self._length is None else self._length
        head = f"{head}Content-Length: {length}\r\n\r\n"
        if self._request.method == "HEAD":
            return head.encode("latin-1")
        if length != str(len(body)):
            raise ValueError("the answer has not the length that it says")
        return head.encode("latin-1") + body


@lru_cache(maxsize=1)
def _date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)
