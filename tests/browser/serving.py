"""How do the test page and Usher share an origin? One server has the page and passes `/api/` on.

Usher's API has no CORS headers, so a page that calls it must come from the same origin,
as behind a reverse proxy.
"""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PAGES = Path(__file__).parent
UPSTREAM_TIMEOUT_S = 30
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host"})


class Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, upstream: str, **kwargs: object) -> None:
        self._upstream = upstream
        super().__init__(*args, directory=str(PAGES), **kwargs)  # type: ignore[arg-type]  # the base class's own

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            self._pass_on()
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self._pass_on()

    do_DELETE = do_POST

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP
        }
        upstream = http.client.HTTPConnection(self._upstream, timeout=UPSTREAM_TIMEOUT_S)
        with contextlib.closing(upstream):
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.end_headers()
            while chunk := answer.read1(65536):  # as it comes: server-sent events have no end
                self.wfile.write(chunk)
                self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the test says what went wrong."""


@contextlib.contextmanager
def serve_page(web_url: str) -> Iterator[str]:
    """Serves the page, with the API of `web_url` (http) beside it; gives the page's address."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, upstream=urlsplit(web_url).netloc)
    ) as server:
        thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/page.html"
        server.shutdown()
        thread.join()
