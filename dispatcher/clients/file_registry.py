"""How does a running process learn of a changed file of clients?

By looking at the file's time and size, at most once a second, when somebody asks for the clients.
A file that is wrong changes nothing: the clients are those of before, and the mistake is logged
once and told by `/readyz` until it is right.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dispatcher.clients import schema
from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.models import Client
from dispatcher.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0

_Signature = dict[Path, tuple[int, int, int]]


def _signature(paths: Iterable[Path]) -> _Signature:
    """What changes when one of the files does; a missing one is all zeros."""
    signature = {}
    for path in paths:
        try:
            status = path.stat()
            signature[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            signature[path] = (0, 0, 0)
    return signature


class FileRegistry(ClientRegistry):
    """The clients of a file, as it is now or was when it was last right; thread-safe."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it is wrong, and there is nothing from before to go on with.
        """
        self._path = path
        self._lock = threading.Lock()
        self._error = ""
        self._seen = _signature({path})
        self._look_at = time.monotonic() + LOOK_S
        super().__init__(clients=self._read())

    @property
    def clients(self) -> tuple[Client, ...]:
        # A clock look, nearly always; and nobody waits for the one who reads.
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._look_at = time.monotonic() + LOOK_S
                self._lock.release()
        return self._clients

    @property
    def error(self) -> str:
        _ = self.clients  # which looks at the file
        return self._error

    def _read(self) -> tuple[Client, ...]:
        # The files that secrets are in are looked at too: a changed secret counts like a changed
        # entry. Looked at before reading: what changes meanwhile is read again.
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
            self._clients = self._read()
        except Exception as error:  # whatever it is: who is served already goes on being served
            told = isinstance(error, ConfigurationError)
            self._error = str(error) if told else f"it cannot be read: {type(error).__name__}"
            logger.error(
                "the file of clients is wrong; the clients stay those of before",
                extra={"error": self._error},
            )
            return
        self._error = ""
        logger.info("clients read again", extra={"clients": len(self._clients)})
