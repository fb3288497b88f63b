"""Where is a customer's own page? On a server of its own: its browser needs CORS to call Usher."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGES = Path(__file__).parent


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the test says what went wrong."""


@dataclass(frozen=True, kw_only=True)
class PageServer:
    """The same page at two origins, of which Usher's client names the first only."""

    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def foreign_origin(self) -> str:
        return f"http://localhost:{self.port}"


@contextlib.contextmanager
def serve_pages() -> Iterator[PageServer]:
    """Serves this folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(PAGES))) as server:
        thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
        thread.start()
        yield PageServer(port=server.server_port)
        server.shutdown()
        thread.join()
