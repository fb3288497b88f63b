"""The clients of a deployment, by id and by key; those of a file are read again when it changes."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from dispatcher.clients import schema
from dispatcher.clients.models import ApiKey, Client
from dispatcher.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0

_Signature = dict[Path, tuple[int, int, int]]


class _Index:
    """The clients by id, and the keys of the enabled ones by SHA-256."""

    def __init__(self, clients: tuple[Client, ...], *, error: str = "") -> None:
        self.clients = clients
        self.error = error
        self.by_id = {client.client_id: client for client in clients}
        self.by_digest = {
            key.sha256: (client, key)
            for client in clients
            for key in client.keys
            if not key.disabled
        }


class ClientRegistry:
    """All clients of this deployment; thread-safe."""

    def __init__(self, *, clients: tuple[Client, ...]) -> None:
        self._index = _Index(clients)

    def _present(self) -> _Index:
        return self._index

    @property
    def clients(self) -> tuple[Client, ...]:
        """Every client, disabled ones too."""
        return self._present().clients

    @property
    def error(self) -> str:
        """What is wrong with the file, so that the earlier clients still hold; "" if nothing."""
        return self._present().error

    def has(self, client_id: str) -> bool:
        """Return True while a client with this id exists."""
        return client_id in self._present().by_id

    def by_id(self, client_id: str) -> Client:
        """Return the client with this id; raise a `ConfigurationError` if there is none."""
        if client := self._present().by_id.get(client_id):
            return client
        raise ConfigurationError(
            f"client {client_id!r} is not configured; add it again or cancel its dispatches"
        )

    def by_key(self, api_key: str) -> tuple[Client, ApiKey] | None:
        """Return the client and the key itself; None for an unknown key or a disabled client.

        The look-up is by SHA-256: its time depends on digests, and these tell nothing of a key that
        has a part in common with another. The digests are compared in constant time nevertheless.
        """
        digest = sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()
        found = self._present().by_digest.get(digest)
        if found is None or not hmac.compare_digest(digest, found[1].sha256):
            return None
        return found


class FileRegistry(ClientRegistry):
    """The clients of a file, as it is now or was when it was last valid.

    A reader of the clients has the file's time and size checked, at most once a second. A wrong
    file changes nothing: the earlier clients still hold, and the mistake is logged once and shown
    by `/readyz` until the file is right.
    """

    def __init__(self, path: Path) -> None:
        """Read the file; raise a `ConfigurationError` if it is wrong."""
        self._path = path
        self._lock = threading.Lock()
        self._seen = _signature({path})
        self._look_at = time.monotonic() + LOOK_S
        super().__init__(clients=self._read())

    def _present(self) -> _Index:
        # Nearly always only a clock read; and no thread waits for the one that reads the file.
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._look_at = time.monotonic() + LOOK_S
                self._lock.release()
        return self._index

    def _read(self) -> tuple[Client, ...]:
        # The files of secrets are checked too: a changed secret counts like a changed entry. The
        # signature is taken before the read, so that a change during the read causes another one.
        before = _signature(self._seen)
        files = {self._path}
        try:
            return schema.read(self._path, files=files)
        finally:
            self._seen = _signature(files) | before

    def _look(self) -> None:
        if _signature(self._seen) == self._seen:
            return
        try:
            self._index = _Index(self._read())
        except Exception as error:  # of any kind: the earlier clients are still served
            told = isinstance(error, ConfigurationError)
            mistake = str(error) if told else f"it cannot be read: {type(error).__name__}"
            self._index = _Index(self._index.clients, error=mistake)
            logger.error(
                "the file of clients is wrong; the clients stay those of before",
                extra={"error": mistake},
            )
        else:
            logger.info("clients read again", extra={"clients": len(self._index.clients)})


def _signature(paths: Iterable[Path]) -> _Signature:
    """Return a value that changes when one of the files does; a missing file is all zeros."""
    signature = {}
    for path in paths:
        try:
            status = path.stat()
            signature[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            signature[path] = (0, 0, 0)
    return signature
