"""The settings of the web, with their defaults."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from dispatcher.settings import MIN_PASSWORD_CHARS, Port, Settings

# A name or an IPv4 address; with a dot in front all names below it, too; or nothing.
_HOST: Final = re.compile(r"(\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?")


class ServerSettings(Settings):
    """The settings that gunicorn needs before it serves the application."""

    host: str = Field("127.0.0.1", min_length=1, alias="USHER_WEB_HOST")
    port: Port = Field(8080, alias="USHER_WEB_PORT")
    workers: int = Field(2, ge=1, le=256, alias="USHER_WEB_WORKERS")


class WebSettings(Settings):
    """The settings of the web application."""

    trusted_proxies: int = Field(
        0, ge=0, alias="USHER_TRUSTED_PROXIES"
    )  # how many proxies of ours add to X-Forwarded-For (and say X-Forwarded-Proto and -Prefix);
    # entries before those are not believed
    operator_auth: SecretStr = Field(
        SecretStr(""), alias="USHER_OPERATOR_AUTH"
    )  # <user>:<password>, to see every client's sessions; empty: no access from outside

    metrics_local: bool = Field(
        False, alias="USHER_METRICS_LOCAL"
    )  # /metrics without a credential for callers on this machine, where no proxy runs on it
    trusted_hosts: str = Field(
        "", alias="USHER_TRUSTED_HOSTS"
    )  # names by which callers reach us, comma-separated, ".example.com" with all below; empty: any
    flower_url: str = Field(
        "", pattern=r"^(https?://\S+)?$", alias="USHER_FLOWER_URL"
    )  # where the operator's browser finds Flower: a link on the dashboard

    @property
    def host_names(self) -> list[str]:
        """The names by which callers reach us; empty: any."""
        return [name.strip() for name in self.trusted_hosts.lower().split(",") if name.strip()]

    @field_validator("trusted_hosts")
    @classmethod
    def _are_host_names(cls, value: str) -> str:
        if not all(_HOST.fullmatch(name.strip()) for name in value.split(",")):
            raise ValueError(
                "must be names without scheme, port or path, comma-separated, such as "
                "usher.example,.internal.example"
            )
        return value

    @field_validator("operator_auth")
    @classmethod
    def _is_no_weak_password(cls, value: SecretStr) -> SecretStr:
        user, _, password = value.get_secret_value().partition(":")
        if value.get_secret_value() and (not user or len(password) < MIN_PASSWORD_CHARS):
            raise ValueError(
                f"must be <user>:<password>, the password {MIN_PASSWORD_CHARS} characters or more"
            )
        return value


class StreamSettings(Settings):
    """The limits on open event streams of one web process."""

    streams: int = Field(2000, gt=0, alias="USHER_STREAMS")
    streams_per_client: int = Field(1000, gt=0, alias="USHER_STREAMS_PER_CLIENT")
    streams_per_dispatch: int = Field(
        200, gt=0, alias="USHER_STREAMS_PER_DISPATCH"
    )  # the people of a large room, each with a page or two

    @field_validator("streams_per_client")
    @classmethod
    def _is_a_share(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("streams", value):
            raise ValueError("must not be more than USHER_STREAMS: lower it, or raise that one")
        return value
