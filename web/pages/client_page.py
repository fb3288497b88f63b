"""Usher's own page at `/`, which starts a session and shows its progress; its scripts and SDK.

It has no build step and nothing inline.
"""

from __future__ import annotations

from flask import Blueprint, Response

from web.pages import static_files

blueprint = Blueprint("client_page", __name__, template_folder=static_files.TEMPLATES)


@blueprint.get("/")
def page() -> Response:
    """Serve the page."""
    return static_files.page("client.html")


@blueprint.get("/client/<path:name>")
def part(name: str) -> Response:
    """Serve a script or style of the page, or LiveKit's SDK."""
    return static_files.page_part("client", name)
