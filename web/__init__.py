"""The web application: answers with a LiveKit token at once and has the agent dispatched.

`create_app` is the application factory: `gunicorn "web:create_app()"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """Make the Flask application from the environment.

    Raises:
        ConfigurationError: an environment variable is missing or wrong.
    """
    from web.app import build

    return build()
