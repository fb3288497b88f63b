"""Edit the file of clients: checked, private, and replaced atomically.

Comments and order are kept. A new key is shown once; the file keeps its SHA-256.
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

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import TOMLKitError

from dispatcher.clients import schema
from dispatcher.clients.models import KeyKind
from dispatcher.clients.schema import MAX_LIVE_KEYS, Surroundings
from dispatcher.errors import UsherError


class EditRefused(UsherError):
    """Nothing was written; the message says why."""


# Prefixes of keys and of their ids: they tell people (and secret scanners) what it is.
_PREFIXES: Final = {KeyKind.SECRET: ("usk_", "sk"), KeyKind.PUBLISHABLE: ("upk_", "pk")}

Table = Any  # tomlkit's tables: dictionaries that keep their formatting


class ClientsFile:
    """The file during an edit; a lock keeps other edits out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text("utf-8") if path.exists() else ""
        try:
            self.document: TOMLDocument = tomlkit.parse(text)
        except TOMLKitError as error:
            raise EditRefused(f"{path}: {error}") from None

    @property
    def clients(self) -> Table:
        return self.document.get("clients", {})

    def client(self, client_id: str) -> Table:
        if client_id not in self.clients:
            raise EditRefused(f"there is no client {client_id!r} in {self.path}")
        return self.clients[client_id]

    def append(self, client_id: str, table: Table) -> None:
        """Add a client at the end, after an empty line."""
        last = tomlkit.document()
        last["clients"] = tomlkit.table(is_super_table=True).append(client_id, table)
        before = tomlkit.dumps(self.document).rstrip("\n")
        self.document = tomlkit.parse(f"{before}\n\n{tomlkit.dumps(last)}".lstrip("\n"))

    def write(self) -> None:
        """Replace the file with the changed one, if that is valid.

        The secrets that it points to are not looked up: they may be on another machine.
        """
        text = tomlkit.dumps(self.document).rstrip("\n") + "\n"
        around = Surroundings(environ={}, resolve=False, allow_private=schema.allow_private())
        try:
            schema.parse(text, name=str(self.path), around=around)
        except UsherError as error:
            raise EditRefused(f"nothing was written, it would be wrong: {error}") from None
        _replace(self.path.resolve(), text)


def _replace(path: Path, text: str) -> None:
    # mkstemp makes the file with mode 0600, before anything is in it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        if path.exists():  # keep owner and mode, so that the same users can read it
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
def editing(path: Path) -> Iterator[ClientsFile]:
    # Lock the folder, not the file: each edit replaces the file by another.
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield ClientsFile(path)
    finally:
        os.close(folder)


def keys_of(table: Table) -> list[Table]:
    return list(table.get("keys", []))


def add_key(table: Table, kind: KeyKind) -> tuple[str, str]:
    """Add a new key to the client's table; return its id and the key itself."""
    live = [key for key in keys_of(table) if key["kind"] == kind and not key.get("disabled")]
    if len(live) >= MAX_LIVE_KEYS:
        names = ", ".join(key["id"] for key in live)
        raise EditRefused(
            f"it has {MAX_LIVE_KEYS} live {kind} keys already ({names}): retire one (--retire ID)"
        )
    prefix, id_prefix = _PREFIXES[kind]
    key = prefix + secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    key_id = f"{id_prefix}-{now:%Y%m%d}-{secrets.token_hex(3)}"
    digest = sha256(key.encode()).hexdigest()
    entry = tomlkit.table()
    entry.update({"id": key_id, "kind": str(kind), "sha256": digest, "created": now})
    if "keys" not in table:
        table.add(tomlkit.nl())
        table["keys"] = tomlkit.aot()
    table["keys"].append(entry)
    return key_id, key
