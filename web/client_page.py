"""What does a person get who opens Usher in a browser?

A page that starts a session and shows its way (`web/pages/client.html`), its scripts, and LiveKit's
own SDK beside them. Nothing of it is built, and nothing of it stands inline: it needs no more than
`script-src 'self'; style-src 'self'`.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from web.page_files import page_file

blueprint = Blueprint("client_page", __name__)

_PARTS: Final = frozenset(
    {
        "style.css",
        "icon.svg",
        "app.js",
        "following.js",
        "levels.js",
        "session.js",
        "words.js",
        "vendor/livekit-client.umd.js",
        "vendor/LICENSE",
        "vendor/LICENSE-bundled",
        "vendor/VERSION",
    }
)


@blueprint.get("/")
def page() -> Response:
    """The page."""
    return page_file("client.html")


@blueprint.get("/client/<path:name>")
def part(name: str) -> Response:
    """What the page is made of.

    Raises:
        NotFound: it has no such part.
    """
    if name not in _PARTS:
        raise NotFound
    return page_file(f"client/{name}")
