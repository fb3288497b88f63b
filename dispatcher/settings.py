"""The settings of every process, read from environment variables, with their defaults.

`load` turns what is missing or wrong into one line that names each variable; `or_stop` ends the
process with that line. No value is ever printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from dispatcher.connections import redis_url
from dispatcher.domain import urls
from dispatcher.domain.timing import Timings
from dispatcher.errors import ConfigurationError

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
YEAR_S: Final = 31_536_000
# A year at most, so that no clock, timer or Redis expiry overflows.
Seconds = Annotated[float, Field(gt=0, le=YEAR_S)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Placement = Literal["livekit", "direct"]
SettingsT = TypeVar("SettingsT", bound=BaseSettings)

MIN_SECRET_CHARS: Final = 32  # LiveKit's own minimum
# For the operator's password, which opens every client's sessions.
MIN_PASSWORD_CHARS: Final = 16


class Settings(BaseSettings):
    """Settings that a process reads once, at its start."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class CommonSettings(Settings):
    """The settings that every process of Usher needs: Redis and logging."""

    redis_url: SecretStr = Field(alias="REDIS_URL")
    # One look-up takes 0.2 ms; the HTTP answer must come within 1 s with Redis hung.
    redis_timeout_s: Seconds = Field(0.3, alias="USHER_REDIS_TIMEOUT_S")
    # Background processes can wait longer: no caller waits for them.
    redis_worker_timeout_s: Seconds = Field(2.0, alias="USHER_REDIS_WORKER_TIMEOUT_S")
    log_format: Literal["json", "text"] = Field("json", alias="USHER_LOG_FORMAT")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", alias="USHER_LOG_LEVEL")
    # Touched every two seconds by a worker, beat or agent server that does its work, for probes.
    alive_file: str = Field("", alias="USHER_ALIVE_FILE")
    # How long an ended record can be read.
    retention_s: int = Field(86_400, gt=0, le=YEAR_S, alias="USHER_RETENTION_S")
    # An agent leaves when no person has joined by then.
    abandon_after_s: Seconds = Field(300.0, alias="USHER_ABANDON_AFTER_S")
    # An agent leaves so long after the last person; LiveKit usually closes the room after 20 s.
    deserted_after_s: Seconds = Field(30.0, alias="USHER_DESERTED_AFTER_S")
    # Sessions on their way; further requests get a 503 instead of waiting in vain; 0: no limit.
    max_backlog: int = Field(500, ge=0, alias="USHER_MAX_BACKLOG")
    # The sweeper wakes a worker again for a queued record that has not changed for so long.
    wake_grace_s: Seconds = Field(2.0, alias="USHER_WAKE_GRACE_S")

    @field_validator("redis_url")
    @classmethod
    def _can_be_redis(cls, value: SecretStr) -> SecretStr:
        redis_url.check(value.get_secret_value())
        return value


class LiveKitSettings(Settings):
    """LiveKit's URL, key and secret."""

    livekit_url: Annotated[Name, AfterValidator(urls.own_livekit_url)] = Field(alias="LIVEKIT_URL")
    livekit_api_key: Name = Field(alias="LIVEKIT_API_KEY")
    livekit_api_secret: SecretStr = Field(alias="LIVEKIT_API_SECRET")

    @field_validator("livekit_api_secret")
    @classmethod
    def _is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < MIN_SECRET_CHARS:
            raise ValueError(f"must be {MIN_SECRET_CHARS} characters or more, as LiveKit wants")
        return value


ClientId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ClientsFileSettings(Settings):
    """The path of the file of clients; empty: one client, from `ClientSettings`."""

    clients_file: str = Field("", alias="USHER_CLIENTS_FILE")


class ClientIdSettings(Settings):
    """The name of the one client of a deployment that has no file of clients."""

    client_id: ClientId = Field("default", alias="USHER_CLIENT_ID")


class ClientSettings(LiveKitSettings, ClientIdSettings):
    """The one client of a deployment that has no file of clients."""

    api_key_sha256: Sha256 = Field(alias="USHER_API_KEY_SHA256")
    publishable_key_sha256: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", alias="USHER_PUBLISHABLE_KEY_SHA256"
    )
    # Pages from which browsers may call, comma-separated, as browsers send them.
    origins: str = Field("", alias="USHER_ORIGINS")
    agent_names: str = Field("session-agent-rag", min_length=1, alias="USHER_AGENT_NAMES")
    container: str = Field("", max_length=256, alias="USHER_CONTAINER")
    deadline_s: float = Field(20.0, gt=0, le=600, alias="USHER_DEADLINE_S")
    # Without Redis: have LiveKit dispatch by the token (true), or answer 503 (false).
    delegate: bool = Field(True, alias="USHER_DELEGATE")
    # Delegate sessions with agent metadata as well, which the holder of the token can then read.
    delegate_metadata: bool = Field(False, alias="USHER_DELEGATE_METADATA")
    webhook_url: str = Field("", max_length=2000, alias="USHER_WEBHOOK_URL")
    webhook_secret: SecretStr = Field(SecretStr(""), alias="USHER_WEBHOOK_SECRET")
    requests_per_minute: int = Field(0, ge=0, alias="USHER_REQUESTS_PER_MINUTE")  # 0: no limit
    max_sessions: int = Field(0, ge=0, alias="USHER_MAX_SESSIONS")  # at once; 0: no limit


class DispatcherSettings(Settings):
    """The settings of dispatch and verification."""

    livekit_timeout_s: Seconds = Field(2.0, alias="USHER_LIVEKIT_TIMEOUT_S")
    verify_timeout_s: Seconds = Field(5.0, alias="USHER_VERIFY_TIMEOUT_S")
    verify_poll_s: Seconds = Field(0.5, alias="USHER_VERIFY_POLL_S")
    wait_s: Seconds = Field(1.0, alias="USHER_WAIT_S")  # between two tries of a waiting record
    # LiveKit offers a job within 0.25 s; a job not offered by then has been dropped.
    offer_timeout_s: Seconds = Field(2.0, alias="USHER_OFFER_TIMEOUT_S")
    # Who gives a job to an agent server: LiveKit, or Usher itself where one takes it so.
    placement: Placement = Field("livekit", alias="USHER_PLACEMENT")
    # Agent names, comma-separated, whose servers run without our request filter and reports.
    unfenced_agents: str = Field("", alias="USHER_UNFENCED_AGENTS")
    # LiveKit also starts its agents without a name in our rooms: a second agent in each.
    automatic_agents: bool = Field(False, alias="USHER_AUTOMATIC_AGENTS")
    # After so many losses in a row, each within the agent's first minute, it is not replaced.
    max_losses: int = Field(5, gt=0, alias="USHER_MAX_LOSSES")
    # Of a worker process's 64 threads, the limit of one client where there are several clients.
    client_tasks: int = Field(32, gt=0, alias="USHER_CLIENT_TASKS")
    webhook_waits_s: str = Field(
        "5,30,120,300,900,1800,3600,3600",
        pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$",
        alias="USHER_WEBHOOK_WAITS_S",
    )  # between the tries of one event: nine in 2.9 h
    # Deliver to private addresses, and over http to loopback (development).
    webhook_allow_private: bool = Field(False, alias="USHER_WEBHOOK_ALLOW_PRIVATE")
    sweep_limit: int = Field(100, gt=0, alias="USHER_SWEEP_LIMIT")

    @property
    def unfenced_names(self) -> frozenset[str]:
        """The agents whose servers run without our request filter and reports."""
        return frozenset(name.strip() for name in self.unfenced_agents.split(",") if name.strip())

    @field_validator("verify_poll_s")
    @classmethod
    def _polls_in_time(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("verify_timeout_s", value):
            raise ValueError("must not be more than USHER_VERIFY_TIMEOUT_S: lower it")
        return value


class WorkerSettings(DispatcherSettings):
    """`DispatcherSettings`, and what the Procfile puts on the workers' command line."""

    dispatch_concurrency: int = Field(64, ge=1, le=1000, alias="USHER_DISPATCH_CONCURRENCY")
    verify_concurrency: int = Field(64, ge=1, le=1000, alias="USHER_VERIFY_CONCURRENCY")
    # A part of the worker's name, where several workers of one kind run on one machine.
    instance: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$", alias="USHER_INSTANCE")

    @model_validator(mode="after")
    def _has_room_for_others(self) -> Self:
        threads = min(self.dispatch_concurrency, self.verify_concurrency)
        if "client_tasks" in self.model_fields_set and self.client_tasks > threads:
            raise ValueError(
                "USHER_CLIENT_TASKS: must not be more than USHER_DISPATCH_CONCURRENCY or "
                "USHER_VERIFY_CONCURRENCY: lower it, or raise those"
            )
        return self


def timings(common: CommonSettings, dispatcher: DispatcherSettings) -> Timings:
    """Return the time-outs that decisions and explanations need."""
    return Timings(
        verify_timeout_s=dispatcher.verify_timeout_s,
        verify_poll_s=dispatcher.verify_poll_s,
        offer_timeout_s=dispatcher.offer_timeout_s,
        wake_grace_s=common.wake_grace_s,
        retention_s=common.retention_s,
    )


def load(cls: type[SettingsT]) -> SettingsT:
    """Read `cls` from the environment; raise a `ConfigurationError` that names what is wrong."""
    try:
        return cls()
    except ValidationError as error:
        lines = [
            _line(problem) for problem in error.errors(include_url=False, include_context=False)
        ]
        raise ConfigurationError(
            "Usher cannot start, set these environment variables right: " + "; ".join(lines)
        ) from None


def _line(problem: ErrorDetails) -> str:
    reason = "is not set" if problem["type"] == "missing" else problem["msg"]
    # An error in the combination of several settings names them in its reason.
    name = "".join(f"{part}: " for part in problem["loc"][:1])
    return name + reason.removeprefix("Value error, ")


@contextmanager
def or_stop() -> Iterator[None]:
    """End the process with one line on standard error when the block finds a wrong setting."""
    try:
        yield
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
