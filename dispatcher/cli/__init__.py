"""The operator's commands: `celery -A dispatcher dispatch ...`.

Every `celery` command imports this entry point, the workers' too, so the commands themselves are
imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

_COMMANDS: Final = {
    "send": "sending",
    "show": "showing",
    "list": "listing",
    "watch": "watching",
    "redispatch": "redispatching",
    "cancel": "cancelling",
    "stats": "stats",
    "agents": "agents",
    "doctor": "doctor",
    "selftest": "selftest",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f"dispatcher.cli.{module}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def dispatch() -> None:
    """Send, look at, watch and repair dispatches.

    Settings come from the environment, as the workers have them (REDIS_URL first of all). Every
    command takes --json; exit codes: 0 done and good, 1 a negative answer, 2 wrong usage, 3 not
    found, 4 Redis unreachable, 5 a setting is wrong, 6 the time is up, 130 Ctrl-C.
    """
