"""The settings of an agent server, with their defaults."""

from __future__ import annotations

import socket
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from dispatcher.settings import YEAR_S, LiveKitSettings, Name, Port, Seconds, Settings


class GuardSettings(Settings):
    """The settings of every agent server of Usher's, our own or another program."""

    container: Name = Field(
        default_factory=socket.gethostname, alias="USHER_AGENT_CONTAINER"
    )  # jobs for another container are refused
    client_id: str = Field(
        "", pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$", alias="USHER_AGENT_CLIENT_ID"
    )  # empty: serves every client
    deployment: str = Field(
        "", alias="LIVEKIT_AGENT_DEPLOYMENT"
    )  # livekit-agents registers with it; LiveKit sends jobs of this deployment only
    slots: int = Field(40, gt=0, alias="USHER_AGENT_SLOTS")  # sessions at once
    report_s: Seconds = Field(2.0, alias="USHER_AGENT_REPORT_S")
    summary_every_s: float = Field(
        300.0, ge=0, le=YEAR_S, alias="USHER_SUMMARY_EVERY_S"
    )  # a line about its requests in the log; 0: only when asked (SIGUSR1)


class AgentSettings(GuardSettings, LiveKitSettings):
    """Our own agent server besides: its name, what it runs and how."""

    agent_name: Name = Field("session-agent-rag", alias="USHER_AGENT_NAME")
    entrypoint: Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")] = Field(
        "worker_agent.echo:entrypoint", alias="USHER_AGENT_ENTRYPOINT"
    )
    executor: Literal["process", "thread"] = Field("process", alias="USHER_AGENT_EXECUTOR")
    idle_processes: int = Field(4, ge=0, alias="USHER_AGENT_IDLE_PROCESSES")
    host: str = Field("127.0.0.1", alias="USHER_AGENT_HOST")  # of the health endpoint
    port: Port = Field(8081, alias="USHER_AGENT_PORT")
    drain_s: int = Field(
        1800, ge=0, le=YEAR_S, alias="USHER_AGENT_DRAIN_S"
    )  # SIGTERM waits for sessions
