"""How are clients and their keys added, shown, rotated and disabled?

`make clients ARGS="..."`, or `python -m dispatcher.clients_cli ...`. It edits the file of
`USHER_CLIENTS_FILE`, comments and order kept, in one step; running processes notice within a
second. A key is shown once, when it is made: the file keeps its SHA-256.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import click
import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError

from dispatcher import registry_file, reports
from dispatcher.clients import KeyKind
from dispatcher.errors import LedgerUnavailable, UsherError
from dispatcher.registry_file import MAX_LIVE_KEYS, Surroundings
from dispatcher.settings import CommonSettings, load
from dispatcher.store import Ledger

KEY_BITS: Final = 256
PREFIXES: Final = {KeyKind.SECRET: "usk_", KeyKind.PUBLISHABLE: "upk_"}
_KINDS: Final = click.Choice([str(kind) for kind in KeyKind])

Table = Any  # tomlkit's tables: dictionaries that remember how they were written


def new_key(kind: KeyKind) -> str:
    """A fresh key; its prefix tells people (and secret scanners) what it is."""
    return PREFIXES[kind] + secrets.token_urlsafe(KEY_BITS // 8)


class ClientsFile:
    """The file while it is being edited; nobody else edits it meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text("utf-8") if path.exists() else ""
        try:
            self.document: TOMLDocument = tomlkit.parse(text)
        except TOMLKitError as error:
            raise click.ClickException(f"{path}: {error}") from None

    @property
    def clients(self) -> Table:
        return self.document.get("clients", {})

    def client(self, client_id: str) -> Table:
        if client_id not in self.clients:
            raise click.ClickException(f"there is no client {client_id!r} in {self.path}")
        return self.clients[client_id]

    def append(self, client_id: str, table: Table) -> None:
        """Add a client at the end, with a line between it and the one before."""
        last = tomlkit.document()
        last["clients"] = tomlkit.table(is_super_table=True).append(client_id, table)
        before = tomlkit.dumps(self.document).rstrip("\n")
        self.document = tomlkit.parse(f"{before}\n\n{tomlkit.dumps(last)}".lstrip("\n"))

    def write(self) -> None:
        """Put the changed file in the place of the old one, if it is right.

        The secrets that it points to are not looked up: they may be another machine's.
        """
        text = tomlkit.dumps(self.document).rstrip("\n") + "\n"
        around = Surroundings(environ={}, resolve=False)
        try:
            registry_file.parse(text, name=str(self.path), around=around)
        except UsherError as error:
            raise click.ClickException(f"nothing was written, it would be wrong: {error}") from None
        _replace(self.path.resolve(), text)


def _replace(path: Path, text: str) -> None:
    # mkstemp makes the file with mode 0600, before anything is in it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        if path.exists():  # who could read it shall be able to read it still
            os.fchown(handle, path.stat().st_uid, path.stat().st_gid)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _editing(path: Path) -> Iterator[ClientsFile]:
    # The folder is locked, not the file: that is another one after each edit.
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield ClientsFile(path)
    finally:
        os.close(folder)


def _keys(table: Table) -> list[Table]:
    return list(table.get("keys", []))


def _add_key(table: Table, kind: KeyKind) -> tuple[str, str]:
    """A new key in the client's table; returns its id and the key itself."""
    live = [key for key in _keys(table) if key["kind"] == kind and not key.get("disabled")]
    if len(live) >= MAX_LIVE_KEYS:
        names = ", ".join(key["id"] for key in live)
        raise click.ClickException(
            f"it has {MAX_LIVE_KEYS} live {kind} keys already ({names}): retire one (--retire ID)"
        )
    key = new_key(kind)
    now = datetime.now(UTC).replace(microsecond=0)
    entry = tomlkit.table()
    key_id = f"{'sk' if kind is KeyKind.SECRET else 'pk'}-{now:%Y%m%d}-{secrets.token_hex(3)}"
    entry.update(
        {
            "id": key_id,
            "kind": str(kind),
            "sha256": sha256(key.encode()).hexdigest(),
            "created": now,
        }
    )
    if "keys" not in table:
        table.add(tomlkit.nl())
        table["keys"] = tomlkit.aot()
    table["keys"].append(entry)
    return key_id, key


def _print_key(key_id: str, kind: KeyKind, key: str) -> None:
    click.echo(f"{kind} key {key_id}, shown this once:\n{key}")


@click.group()
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
    with _editing(path) as file:
        if client_id in file.clients:
            raise click.ClickException(f"client {client_id!r} is there already")
        table = tomlkit.table()
        for name, value in options.items():
            if value not in (None, ()):
                table[name] = list(value) if isinstance(value, tuple) else value
        kinds = [KeyKind.SECRET, *([KeyKind.PUBLISHABLE] if options["origins"] else [])]
        made = [(kind, *_add_key(table, kind)) for kind in kinds]
        file.append(client_id, table)
        file.write()
    for kind, key_id, key in made:
        _print_key(key_id, kind, key)


@clients.command("list")
@click.pass_obj
def list_clients(path: Path) -> None:
    """One line for each client."""
    for client_id, table in ClientsFile(path).clients.items():
        live = sum(not key.get("disabled") for key in _keys(table))
        state = "disabled" if table.get("disabled") else "enabled"
        agents = ", ".join(table["agent_names"])
        click.echo(f"{client_id}  {state}  {live} live keys  {table['livekit_url']}  {agents}")


@clients.command()
@click.argument("client_id")
@click.pass_obj
def show(path: Path, client_id: str) -> None:
    """What a client has, and when each of its keys was last used."""
    table = ClientsFile(path).client(client_id)
    click.echo(f"{client_id}")
    for name, value in table.items():
        if name != "keys":
            click.echo(f"  {name} = {value}")
    uses, unknown = _uses(client_id)
    for key in _keys(table):
        state = "disabled" if key.get("disabled") else "live"
        used_ms = uses.get(key["id"])
        used = (
            datetime.fromtimestamp(used_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
            if used_ms
            else unknown
        )
        made = key.get("created", "unknown")
        click.echo(f"  {key['kind']} key {key['id']}  {state}  made {made}  last used {used}")


def _uses(client_id: str) -> tuple[dict[str, int], str]:
    """When the client's keys were last used, and what to say of one that is not in there."""
    try:
        return Ledger(load(CommonSettings)).run(reports.key_uses(client_id)), "never"
    except UsherError:
        return {}, "unknown (no answer from REDIS_URL)"


@clients.command()
@click.argument("client_id")
@click.option("--kind", type=_KINDS, default=str(KeyKind.SECRET), show_default=True)
@click.option("--retire", metavar="ID", help="Take this key out instead of adding one.")
@click.pass_obj
def rotate(path: Path, client_id: str, kind: str, retire: str | None) -> None:
    """Add a key beside the one in use; later, take the old one out with --retire."""
    with _editing(path) as file:
        table = file.client(client_id)
        if retire is None:
            key_id, key = _add_key(table, KeyKind(kind))
            file.write()
            _print_key(key_id, KeyKind(kind), key)
            return
        index = next((i for i, k in enumerate(_keys(table)) if k["id"] == retire), None)
        if index is None:
            raise click.ClickException(f"client {client_id!r} has no key {retire!r}")
        del table["keys"][index]
        file.write()
    click.echo(f"key {retire} opens nothing any more")


def _set_disabled(path: Path, client_id: str, disabled: bool) -> None:
    with _editing(path) as file:
        table = file.client(client_id)
        if disabled:
            # Before the keys: what follows a table of keys would belong to the last of them.
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
    with _editing(path) as file:
        file.client(client_id)
        if not force:
            _refuse_with_open_sessions(client_id)
        del file.clients[client_id]
        file.write()
    click.echo(f"client {client_id} is removed")


def _refuse_with_open_sessions(client_id: str) -> None:
    try:
        count = Ledger(load(CommonSettings)).run(reports.open_sessions(client_id))
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
