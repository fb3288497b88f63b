"""The settings that `flowerconfig.py` reads, and a check of Flower's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flower.command import ENV_VAR_PREFIX, is_flower_envvar
from flower.options import default_options
from flower.utils import strtobool
from pydantic import Field

from dispatcher.errors import ConfigurationError
from dispatcher.settings import YEAR_S, Port, Settings


class FlowerSettings(Settings):
    """Flower's settings whose defaults differ from Flower's own."""

    address: str = Field("127.0.0.1", alias="FLOWER_ADDRESS")  # Flower's default: every address
    own_port: Port | None = Field(None, alias="FLOWER_PORT")
    default_port: Port = Field(5555, alias="USHER_FLOWER_PORT")
    # The search finds a session by its room or dispatch id, which are in `kwargs`
    # (docs/operations.md); `result` is the record's state after the task.
    tasks_columns: str = Field(
        "name,kwargs,state,result,received,runtime,worker", alias="FLOWER_TASKS_COLUMNS"
    )
    persistent: bool = Field(True, alias="FLOWER_PERSISTENT")  # the history outlives a restart
    db: str = Field("", alias="FLOWER_DB")
    run_dir: str = Field("", alias="USHER_RUN_DIR")
    # Flower answers no request while it saves, and saves everything each time: 10,000 tasks (some
    # 3,000 sessions) are 3 MB, 0.6 s, 0.2 GB of memory; its default of 100,000 ten times that.
    max_tasks: int = Field(10_000, gt=0, alias="FLOWER_MAX_TASKS")
    state_save_interval_ms: int = Field(60_000, ge=0, alias="FLOWER_STATE_SAVE_INTERVAL")
    # Otherwise a persistent history would show every former worker for ever.
    purge_offline_workers_s: int = Field(
        86_400, ge=0, le=YEAR_S, alias="FLOWER_PURGE_OFFLINE_WORKERS"
    )

    @property
    def port(self) -> int:
        """The port that Flower listens on."""
        return self.default_port if self.own_port is None else self.own_port

    @property
    def history(self) -> Path:
        """The path of the history, in a folder of its own."""
        return Path(self.db) if self.db else Path(self.run_dir or ".run") / "flower" / "tasks"


def check(environ: Mapping[str, str]) -> None:
    """Raise a `ConfigurationError` that names each `FLOWER_...` that Flower cannot read."""
    wrong = [
        name for name in sorted(environ) if is_flower_envvar(name) and not _reads(name, environ)
    ]
    if wrong:
        raise ConfigurationError(
            f"Usher cannot start, Flower cannot read {', '.join(wrong)}: set them as "
            "`celery -A dispatcher flower --help` describes, or unset them"
        )


def _reads(name: str, environ: Mapping[str, str]) -> bool:
    option, value = name.removeprefix(ENV_VAR_PREFIX).lower(), environ[name]
    try:
        if isinstance(default_options[option], bool):
            strtobool(value)  # stricter than Flower's command line
        else:
            default_options.parse_command_line(["flower", f"--{option}={value}"], final=False)
    except (TypeError, ValueError):
        return False
    return True
