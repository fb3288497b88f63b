"""How do the files of a page reach the browser?

As they are, from `web/pages/`: nothing of a page is built, and nothing of it stands inline.
"""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final

from flask import Response, request

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".js": "text/javascript",
}


@cache
def _content(name: str, *, zipped: bool) -> tuple[bytes, str]:
    """The file, and what its version is called; zipped LiveKit's SDK is a quarter of its 610 kB."""
    data = (resources.files("web") / "pages").joinpath(*name.split("/")).read_bytes()
    etag = sha256(data).hexdigest()[:16]
    return (gzip.compress(data, mtime=0), f"{etag}-gzip") if zipped else (data, etag)


def page_file(name: str) -> Response:
    """The file of that name under `web/pages/`, which the caller knows to be there."""
    zipped = bool(request.accept_encodings["gzip"])
    data, etag = _content(name, zipped=zipped)
    suffix = name[name.rfind(".") :] if "." in name else ""
    answer = Response(data, mimetype=_TYPES.get(suffix, "text/plain"))
    if zipped:
        answer.headers["Content-Encoding"] = "gzip"
    answer.vary.add("Accept-Encoding")
    # Asked for again at each visit, and mostly answered with a 304: never half of an old page.
    answer.headers["Cache-Control"] = "no-cache"
    answer.set_etag(etag)
    answer.make_conditional(request)
    return answer
