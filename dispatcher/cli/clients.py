"""Add, show, rotate and disable clients and their keys.

`make clients ARGS="..."`, or `python -m dispatcher.cli.clients ...`. It edits the file of
`USHER_CLIENTS_FILE` in one step and keeps comments and order; running processes notice within a
second. A key is shown once, when it is made: the file keeps its SHA-256.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
import tomlkit

from dispatcher.cli import reach
from dispatcher.cli.rendering import clock
from dispatcher.clients.editing import ClientsFile, EditRefused, add_key, editing, keys_of
from dispatcher.clients.models import KeyKind
from dispatcher.errors import LedgerUnavailable, UsherError
from dispatcher.ledger import reports

_KINDS: Final = click.Choice([str(kind) for kind in KeyKind])


def _print_key(key_id: str, kind: KeyKind, key: str) -> None:
    click.echo(f"{kind} key {key_id}, shown this once:\n{key}")


class _Group(click.Group):
    """A group that reports a refused edit in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EditRefused as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group)
@click.option(
    "--file",
    "path",
    envvar="USHER_CLIENTS_FILE",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of clients (default: USHER_CLIENTS_FILE).",
)
@click.pass_context
def clients(context: click.Context, path: Path) -> None:
    """Add, show, rotate and disable clients and their keys."""
    if not path.resolve().parent.is_dir():
        raise click.ClickException(f"there is no folder {path.resolve().parent}")
    context.obj = path


@clients.command()
@click.argument("client_id")
@click.option("--livekit-url", required=True)
@click.option("--livekit-api-key", required=True, help="The key itself, env:NAME or file:/path.")
@click.option("--livekit-api-secret", required=True, help="env:NAME or file:/path.")
@click.option("--agent", "agent_names", multiple=True, required=True, help="The default one first.")
@click.option("--container")
@click.option("--deadline-s", type=float)
@click.option(
    "--origin", "origins", multiple=True, help="A page's origin; makes a publishable key."
)
@click.option("--max-sessions", type=int)
@click.option("--requests-per-minute", type=int)
@click.option("--webhook-url")
@click.option("--webhook-secret", help="env:NAME or file:/path.")
@click.option("--shared-livekit", is_flag=True, default=None)
@click.pass_obj
def add(path: Path, /, client_id: str, **options: Any) -> None:
    """Add a client, and print its first key."""
    with editing(path) as file:
        if client_id in file.clients:
            raise click.ClickException(f"client {client_id!r} is there already")
        table = tomlkit.table()
        for name, value in options.items():
            if value not in (None, ()):
                table[name] = list(value) if isinstance(value, tuple) else value
        kinds = [KeyKind.SECRET, *([KeyKind.PUBLISHABLE] if options["origins"] else [])]
        made = [(kind, *add_key(table, kind)) for kind in kinds]
        file.append(client_id, table)
        file.write()
    for kind, key_id, key in made:
        _print_key(key_id, kind, key)


@clients.command("list")
@click.pass_obj
def list_clients(path: Path) -> None:
    """One line for each client."""
    for client_id, table in ClientsFile(path).clients.items():
        live = sum(not key.get("disabled") for key in keys_of(table))
        state = "disabled" if table.get("disabled") else "enabled"
        agents = ", ".join(table["agent_names"])
        click.echo(f"{client_id}  {state}  {live} live keys  {table['livekit_url']}  {agents}")


@clients.command()
@click.argument("client_id")
@click.pass_obj
def show(path: Path, client_id: str) -> None:
    """What a client has, and when each of its keys was last used."""
    table = ClientsFile(path).client(client_id)
    click.echo(client_id)
    for name, value in table.items():
        if name != "keys":
            click.echo(f"  {name} = {value}")
    uses, unknown = _uses(client_id)
    for key in keys_of(table):
        state = "disabled" if key.get("disabled") else "live"
        used_ms = uses.get(key["id"])
        used = clock(used_ms, date=True) if used_ms else unknown
        made = key.get("created", "unknown")
        click.echo(f"  {key['kind']} key {key['id']}  {state}  made {made}  last used {used}")


def _uses(client_id: str) -> tuple[dict[str, int], str]:
    """Return when the client's keys were last used, and the text for a key without an entry."""
    try:
        return reach.open_ledger().run(reports.key_uses(client_id)), "never"
    except UsherError:
        return {}, "unknown (no answer from REDIS_URL)"


@clients.command()
@click.argument("client_id")
@click.option("--kind", type=_KINDS, default=str(KeyKind.SECRET), show_default=True)
@click.option("--retire", metavar="ID", help="Take this key out instead of adding one.")
@click.pass_obj
def rotate(path: Path, client_id: str, kind: str, retire: str | None) -> None:
    """Add a key beside the one in use; later, take the old one out with --retire."""
    with editing(path) as file:
        table = file.client(client_id)
        if retire is None:
            key_id, key = add_key(table, KeyKind(kind))
            file.write()
            _print_key(key_id, KeyKind(kind), key)
            return
        index = next((i for i, k in enumerate(keys_of(table)) if k["id"] == retire), None)
        if index is None:
            raise click.ClickException(f"client {client_id!r} has no key {retire!r}")
        del table["keys"][index]
        file.write()
    click.echo(f"key {retire} opens nothing any more")


def _set_disabled(path: Path, client_id: str, disabled: bool) -> None:
    with editing(path) as file:
        table = file.client(client_id)
        if disabled:
            # Before the keys: TOML adds what follows a table of keys to the last of them.
            keys = table.pop("keys", None)
            table["disabled"] = True
            if keys is not None:
                table["keys"] = keys
        else:
            table.pop("disabled", None)
        file.write()
    click.echo(f"client {client_id} is {'disabled' if disabled else 'enabled'}")


@clients.command()
@click.argument("client_id")
@click.pass_obj
def disable(path: Path, client_id: str) -> None:
    """Have a client's keys open nothing; its sessions are looked after to their end."""
    _set_disabled(path, client_id, True)


@clients.command()
@click.argument("client_id")
@click.pass_obj
def enable(path: Path, client_id: str) -> None:
    """Undo `disable`."""
    _set_disabled(path, client_id, False)


@clients.command()
@click.argument("client_id")
@click.option("--force", is_flag=True, help="Even with sessions that have not ended.")
@click.pass_obj
def remove(path: Path, client_id: str, force: bool) -> None:
    """Take a client out; disable it first, or nobody looks after its open sessions."""
    with editing(path) as file:
        file.client(client_id)
        if not force:
            _refuse_with_open_sessions(client_id)
        del file.clients[client_id]
        file.write()
    click.echo(f"client {client_id} is removed")


def _refuse_with_open_sessions(client_id: str) -> None:
    try:
        count = reach.open_ledger().run(reports.open_sessions(client_id))
    except LedgerUnavailable as error:
        raise click.ClickException(f"cannot tell whether it has sessions: {error}") from None
    except UsherError as error:
        raise click.ClickException(f"{error} (or --force)") from None
    if count:
        raise click.ClickException(
            f"client {client_id!r} has {count} sessions that have not ended; disable it and wait "
            "for them, or --force"
        )


if __name__ == "__main__":
    clients(prog_name="clients")
