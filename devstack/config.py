"""A stack's configuration: URLs, the environment of its processes, and `stack.env`."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack import PROJECT_ROOT
from devstack.credentials import FLOWER_USER, OPERATOR_USER, Credentials
from devstack.ports import LOOPBACK, Ports
from devstack.processes import MARK_VARIABLE

CLIENT_ID = "demo"

# The processes get an environment that is made for them: other variables of the caller, such as
# the REDIS_URL of a deployment, must not reach them.
_KEPT_VARIABLES = frozenset({"HOME", "LANG", "LOGNAME", "TMPDIR", "TZ", "USER"})
_KEPT_PREFIXES = ("USHER_", "OTEL_", "LC_", "PYTHON", "COVERAGE_")


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One stack: where it keeps its data, and how its parts reach each other."""

    run_dir: Path
    ports: Ports
    credentials: Credentials

    @property
    def web_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.web}"

    @property
    def livekit_url(self) -> str:
        return f"ws://{LOOPBACK}:{self.ports.livekit}"

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.credentials.redis_password}@{LOOPBACK}:{self.ports.redis}/0"

    @property
    def flower_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.flower}"

    @property
    def agent_url(self) -> str:
        """The URL of the agent server's health endpoint."""
        return f"http://{LOOPBACK}:{self.ports.agent}"

    @property
    def log_dir(self) -> Path:
        return self.run_dir / "log"

    @property
    def env_file(self) -> Path:
        return self.run_dir / "stack.env"

    def process_environment(self, caller: Mapping[str, str]) -> dict[str, str]:
        """Make the environment of every process of the stack."""
        kept = {
            name: value
            for name, value in caller.items()
            if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
        }
        scripts = Path(sys.executable).parent
        # Of Usher's own page, by the two host names that people type, and the caller's.
        origins = [self.web_url, f"http://localhost:{self.ports.web}", caller.get("USHER_ORIGINS")]
        return kept | {
            "PATH": os.pathsep.join([str(scripts), caller.get("PATH", os.defpath)]),
            "PYTHONPATH": _python_path(caller),
            "PYTHONUNBUFFERED": "1",
            "REDIS_URL": self.redis_url,
            "LIVEKIT_URL": self.livekit_url,
            "LIVEKIT_API_KEY": self.credentials.livekit_api_key,
            "LIVEKIT_API_SECRET": self.credentials.livekit_api_secret,
            "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{self.credentials.flower_password}",
            "USHER_OPERATOR_AUTH": f"{OPERATOR_USER}:{self.credentials.operator_password}",
            "USHER_METRICS_LOCAL": "true",
            "USHER_FLOWER_URL": self.flower_url,
            "USHER_CLIENT_ID": CLIENT_ID,
            "USHER_API_KEY_SHA256": self.credentials.api_key_sha256,
            "USHER_PUBLISHABLE_KEY_SHA256": self.credentials.publishable_key_sha256,
            "USHER_ORIGINS": ",".join(filter(None, origins)),
            "USHER_WEB_HOST": LOOPBACK,
            "USHER_WEB_PORT": str(self.ports.web),
            "USHER_FLOWER_PORT": str(self.ports.flower),
            "USHER_AGENT_PORT": str(self.ports.agent),
            "USHER_LOG_FORMAT": caller.get("USHER_LOG_FORMAT", "text"),
            "USHER_RUN_DIR": str(self.run_dir),
            MARK_VARIABLE: str(self.run_dir),
        }

    def shell_variables(self) -> str:
        """Return the lines of stack.env: URLs and credentials for clients and developers."""
        variables = {
            "WEB_URL": self.web_url,
            "API_KEY": self.credentials.api_key,
            "USHER_API_KEY_SHA256": self.credentials.api_key_sha256,
            "PUBLISHABLE_KEY": self.credentials.publishable_key,
            "LIVEKIT_URL": self.livekit_url,
            "LIVEKIT_API_KEY": self.credentials.livekit_api_key,
            "LIVEKIT_API_SECRET": self.credentials.livekit_api_secret,
            "REDIS_URL": self.redis_url,
            "FLOWER_URL": self.flower_url,
            "FLOWER_USER": FLOWER_USER,
            "FLOWER_PASSWORD": self.credentials.flower_password,
            "DASHBOARD_URL": f"{self.web_url}/dashboard",
            "OPERATOR_USER": OPERATOR_USER,
            "OPERATOR_PASSWORD": self.credentials.operator_password,
            "AGENT_URL": self.agent_url,
            "USHER_CLIENT_ID": CLIENT_ID,
        }
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def _python_path(caller: Mapping[str, str]) -> str:
    """Return our path, then the caller's, where the program of USHER_AGENT_ENTRYPOINT may be.

    The processes run in the project's folder, so the caller's entries are made absolute.
    """
    own = caller.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(PROJECT_ROOT), *map(os.path.abspath, filter(None, own))])
