"""Is the request that comes in on a connection whole?

Only its framing is looked at, so that no thread is given a request that it would have to wait for.
What the request says, and whether it is right, llhttp judges (`web/http1.py`): it gets what is one
request here and no byte more, and where it does not see one whole request there, that is refused.
What looks odd is handed to it as it is.
"""

from __future__ import annotations

import re
from typing import Final

# The largest well-formed request: 64,000 bytes of metadata twice (participant's and agent's), every
# byte escaped as \u00XX, and as much again for attributes and names.
MAX_BODY_BYTES: Final = 1_000_000
# As it is sent: small chunks carry more framing than body.
_MAX_RAW_BODY_BYTES: Final = 2 * MAX_BODY_BYTES
MAX_HEAD_BYTES: Final = 65_536
_MAX_CHUNK_LINE_BYTES: Final = 8_192

_END: Final = b"\r\n\r\n"
# What says where it ends, and who waits to be told to go on.
_FRAMING: Final = re.compile(
    rb"\r\n(?:content-length:[ \t]*(?P<length>\d{1,18})"
    rb"|transfer-encoding:[ \t]*(?P<chunked>chunked)"
    rb"|upgrade:[ \t]*(?P<upgrade>[^\r\n]*)"
    rb"|expect:[ \t]*(?P<expects>100-continue))[ \t]*(?=\r\n)",
    re.IGNORECASE,
)
_NOT_SAID_ON: Final = re.compile(
    rb"\r\n(?:expect:[ \t]*100-continue[ \t]*|upgrade:[^\r\n]*)(?=\r\n)", re.IGNORECASE
)
_CHUNK_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?\Z", re.DOTALL)


class Incoming:
    """The bytes of one request as they arrive, and perhaps the beginning of the next one.

    Attributes:
        whole: there is no more to wait for; so is what will be refused without it.
        too_large: its body is larger than we take, and has not been waited for.
        asks_to_continue: the caller waits for `100 Continue` before it sends the body.
        follows: its beginning has come together with the request before.
    """

    def __init__(self, data: bytes = b"", *, follows: bool = False) -> None:
        self.follows = follows and bool(data)
        self.whole = False
        self.too_large = False
        self.asks_to_continue = False
        self._data = bytearray()
        self._searched = 0
        self._body_at = 0
        self._end = 0  # where the body ends; 0 as long as that is not known
        self._chunk_at = 0  # where the next chunk begins, when there are chunks
        self._in_chunks = 0  # bytes of body in those before it
        self.feed(data)

    def __len__(self) -> int:
        return len(self._data)

    def begins_with(self, prefix: bytes) -> bool:
        """True when its first bytes are these."""
        return self._data.startswith(prefix)

    def feed(self, data: bytes) -> None:
        """Take what has just come."""
        self._data += data
        if self.whole:
            return
        if not self._body_at:
            self._look_for_head()
        if self._chunk_at and not self._end:
            self._look_for_last_chunk()
        if self._end and len(self._data) >= self._end:
            self.whole = True

    def take(self) -> tuple[bytes, bytes]:
        """The request, and what has come after it.

        Of one that is too large it is the head, and nothing comes after it.
        """
        if self.too_large:
            return bytes(self._data[: self._body_at]), b""
        end = self._end or len(self._data)
        return bytes(self._data[:end]), bytes(self._data[end:])

    def _look_for_head(self) -> None:
        at = self._data.find(_END, max(0, self._searched - len(_END)))
        self._searched = len(self._data)
        if at < 0:
            # Nobody sends so much; the parser says what it thinks of it.
            self.whole = len(self._data) > MAX_HEAD_BYTES
            return
        head = bytes(self._data[: at + 2])
        said: dict[str | None, bytes] = {}
        for field in _FRAMING.finditer(head):
            said.setdefault(field.lastgroup, field[field.lastgroup or 0])
        if "expects" in said or "upgrade" in said:
            # Only we know when to say that one may continue. To another protocol nobody goes over
            # here, which llhttp would have happened behind the head, body or not (Java's HttpClient
            # asks for h2c with every first request).
            head = _NOT_SAID_ON.sub(b"", head)
            self._data[: at + 2] = head
            self.asks_to_continue = "expects" in said
        self._body_at = len(head) + 2
        if "chunked" in said:
            self._chunk_at = self._body_at
            return
        length = int(said.get("length", 0))
        self._end = self._body_at + length
        if length > MAX_BODY_BYTES:
            self.whole = self.too_large = True

    def _look_for_last_chunk(self) -> None:
        while not self._end and not self.whole:
            line_end = self._data.find(b"\r\n", self._chunk_at)
            if line_end < 0:
                # An endless line is the parser's to refuse.
                self.whole = len(self._data) - self._chunk_at > _MAX_CHUNK_LINE_BYTES
                return
            line = _CHUNK_LINE.match(self._data[self._chunk_at : line_end])
            if line is None:
                self.whole = True
            elif int(line[1], 16) == 0:
                self._look_for_trailers(line_end)
                return
            else:
                self._in_chunks += int(line[1], 16)
                self._chunk_at = line_end + 2 + int(line[1], 16) + 2
                raw = self._chunk_at - self._body_at
                if self._in_chunks > MAX_BODY_BYTES or raw > _MAX_RAW_BODY_BYTES:
                    self.whole = self.too_large = True

    def _look_for_trailers(self, line_end: int) -> None:
        at = self._data.find(_END, line_end)
        if at >= 0:
            self._end = at + len(_END)
        else:
            self.whole = len(self._data) - line_end > MAX_HEAD_BYTES
