"""Parameter types, shared options and shell completion."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from dispatcher.cli.reach import client_ids, open_ledger
from dispatcher.domain.models import State
from dispatcher.errors import UsherError
from dispatcher.ledger import queries

Function = TypeVar("Function", bound=Callable[..., Any])

_UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_COMPLETED: Final = 30  # ids of each client


class Duration(click.ParamType[float]):
    """A duration such as `90s`, `5m`, `1h`, `2d`, in seconds; a number alone is seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no stretch of time; write it like 90s, 5m, 1h or 2d", param)
        return float(found[1]) * _UNITS_S[found[2] or "s"]


STATES: Final = click.Choice([str(state) for state in State])


def complete_clients(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the ids of the configured clients."""
    try:
        return [name for name in client_ids() if name.startswith(incomplete)]
    except UsherError:
        return []


def complete_dispatches(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the newest dispatch ids of each client; none if Redis does not answer at once."""
    items = []
    try:
        ledger = open_ledger()
        for client_id in client_ids():
            step = queries.page(client_id, state=None, limit=_COMPLETED, after=None)
            for dispatch in ledger.run(step).dispatches:
                if dispatch.dispatch_id.startswith(incomplete):
                    about = f"{dispatch.state} {dispatch.room_name}"
                    items.append(CompletionItem(dispatch.dispatch_id, help=about))
    except UsherError:
        pass
    return items


def dispatch_id_argument(*, required: bool = True) -> Callable[[Function], Function]:
    """Return the argument ID, completed by the shell."""
    return click.argument(
        "dispatch_id",
        metavar="ID" if required else "[ID]",
        required=required,
        shell_complete=complete_dispatches,
    )


def client_option(what: str) -> Callable[[Function], Function]:
    """Return the option --client."""
    return click.option("--client", "client_id", help=what, shell_complete=complete_clients)
