"""What does a person get who opens Usher in a browser?

A page that starts a session and shows its way (`web/pages/client.html`), its scripts, and LiveKit's
own SDK beside them. Nothing of it is built, and nothing of it stands inline: it needs no more than
`script-src 'self'; style-src 'self'`.
"""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

blueprint = Blueprint("client_page", __name__)

_SCRIPT: Final = "text/javascript"
_TYPES: Final = {
    "client.html": "text/html",
    "client/style.css": "text/css",
    "client/icon.svg": "image/svg+xml",
    "client/app.js": _SCRIPT,
    "client/following.js": _SCRIPT,
    "client/levels.js": _SCRIPT,
    "client/session.js": _SCRIPT,
    "client/words.js": _SCRIPT,
    "client/vendor/livekit-client.umd.js": _SCRIPT,
    "client/vendor/LICENSE": "text/plain",
    "client/vendor/LICENSE-bundled": "text/plain",
    "client/vendor/VERSION": "text/plain",
}


@cache
def _content(name: str, *, zipped: bool) -> tuple[bytes, str]:
    """The file, and what its version is called; zipped LiveKit's SDK is a quarter of its 610 kB."""
    data = (resources.files("web") / "pages").joinpath(*name.split("/")).read_bytes()
    etag = sha256(data).hexdigest()[:16]
    return (gzip.compress(data, mtime=0), f"{etag}-gzip") if zipped else (data, etag)


def _file(name: str) -> Response:
    zipped = bool(request.accept_encodings["gzip"])
    data, etag = _content(name, zipped=zipped)
    answer = Response(data, mimetype=_TYPES[name])
    if zipped:
        answer.headers["Content-Encoding"] = "gzip"
    answer.vary.add("Accept-Encoding")
    # Asked for again at each visit, and mostly answered with a 304: never half of an old page.
    answer.headers["Cache-Control"] = "no-cache"
    answer.set_etag(etag)
    answer.make_conditional(request)
    return answer


@blueprint.get("/")
def page() -> Response:
    """The page."""
    return _file("client.html")


@blueprint.get("/client/<path:name>")
def part(name: str) -> Response:
    """What the page is made of.

    Raises:
        NotFound: it has no such part.
    """
    if f"client/{name}" not in _TYPES:
        raise NotFound
    return _file(f"client/{name}")
