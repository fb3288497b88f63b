"""How do the files of a page reach the browser?

As they are, from `web/pages/`: nothing of a page is built, and nothing of it stands inline. Only
behind a proxy that serves Usher under a path are the links of a page written anew.
"""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
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


# Links of pages are `/...`; what is added to the element `html` is for scripts (`dom.js`).
_LINK: Final = re.compile(r'\b(href|src|action)="/')


def under_prefix(page: str, prefix: str) -> str:
    """A page whose links lead to where it is served from; `prefix` is "" or begins with a slash."""
    if not prefix:
        return page
    linked = _LINK.sub(rf'\1="{prefix}/', page)
    return linked.replace("<html ", f'<html data-prefix="{prefix}" ', 1)


@lru_cache(maxsize=128)
def _content(name: str, *, zipped: bool, prefix: str) -> tuple[bytes, str]:
    """The file, and what its version is called; zipped LiveKit's SDK is a quarter of its 610 kB."""
    data = (resources.files("web") / "pages").joinpath(*name.split("/")).read_bytes()
    if prefix:
        data = under_prefix(data.decode(), prefix).encode()
    etag = sha256(data).hexdigest()[:16]
    return (gzip.compress(data, mtime=0), f"{etag}-gzip") if zipped else (data, etag)


def page_file(name: str) -> Response:
    """The file of that name under `web/pages/`, which the caller knows to be there."""
    zipped = bool(request.accept_encodings["gzip"])
    suffix = name[name.rfind(".") :] if "." in name else ""
    prefix = request.root_path if suffix == ".html" else ""
    data, etag = _content(name, zipped=zipped, prefix=prefix)
    answer = Response(data, mimetype=_TYPES.get(suffix, "text/plain"))
    if zipped:
        answer.headers["Content-Encoding"] = "gzip"
    answer.vary.add("Accept-Encoding")
    # Asked for again at each visit, and mostly answered with a 304: never half of an old page.
    answer.headers["Cache-Control"] = "no-cache"
    answer.set_etag(etag)
    answer.make_conditional(request)
    return answer
