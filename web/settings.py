"""The settings of gunicorn, with their defaults: host, port and worker processes."""

from __future__ import annotations

from pydantic import Field

from dispatcher.settings import Port, Settings


class ServerSettings(Settings):
    """The settings that gunicorn needs before it serves the application."""

    host: str = Field("127.0.0.1", min_length=1, alias="USHER_WEB_HOST")
    port: Port = Field(8080, alias="USHER_WEB_PORT")
    workers: int = Field(2, ge=1, le=256, alias="USHER_WEB_WORKERS")
