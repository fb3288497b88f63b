"""The page at `/`, which starts a session and shows its way; its scripts, and LiveKit's own SDK.

Nothing of it is built, and nothing of it stands inline: it needs no more than
`script-src 'self'; style-src 'self'`.
"""

from __future__ import annotations

from flask import Blueprint, Response

from web.pages import static_files

blueprint = Blueprint("client_page", __name__, template_folder=static_files.TEMPLATES)


@blueprint.get("/")
def page() -> Response:
    """The page."""
    return static_files.page("client.html")


@blueprint.get("/client/<path:name>")
def part(name: str) -> Response:
    """What the page is made of.

    Raises:
        NotFound: it has no such part.
    """
    return static_files.page_part("client", name)
