"""Pages and static files for browsers: compressed, and a 304 where nothing has changed.

Flask's static files have an ETag that differs between machines, and are not compressed. LiveKit's
SDK, 610 kB, is a quarter of that compressed, and Usher is used without a proxy, too.
"""

from __future__ import annotations

import gzip
import os.path
from functools import lru_cache
from pathlib import Path
from typing import Final

from flask import Response, render_template, request
from werkzeug.exceptions import NotFound
from werkzeug.security import safe_join

PAGES: Final = Path(__file__).parent
TEMPLATES: Final = PAGES / "templates"

# Fixed here: the machine's own list of media types differs between Pythons.
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page(template: str) -> Response:
    """Serve a page that is made from its template alone."""
    return _revalidated(Response(render_template(template), mimetype="text/html"))


def page_part(folder: str, name: str) -> Response:
    """Serve the file of that name in a folder of `web/pages/`; a 404 where there is none."""
    path = safe_join(str(PAGES / folder), name)
    if path is None or not os.path.isfile(path):
        raise NotFound
    kind = _TYPES.get(Path(path).suffix, "text/plain")
    return _revalidated(Response(Path(path).read_bytes(), mimetype=kind))


def _revalidated(answer: Response) -> Response:
    if request.accept_encodings["gzip"]:
        answer.set_data(_zipped(answer.get_data()))
        answer.headers["Content-Encoding"] = "gzip"
    answer.vary.add("Accept-Encoding")
    # Revalidated at each visit, mostly with a 304, so that no page mixes old and new files.
    answer.headers["Cache-Control"] = "no-cache"
    answer.add_etag()
    answer.make_conditional(request)
    return answer


@lru_cache(maxsize=128)
def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
