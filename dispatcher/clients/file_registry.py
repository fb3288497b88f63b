"""Reload a changed file of clients in a running process.

A reader of the clients has the file's time and size checked, at most once a second. A wrong file
changes nothing: the earlier clients still hold, and the mistake is logged once and shown by
`/readyz` until the file is right.
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
    """Return a value that changes when one of the files does; a missing file is all zeros."""
    signature = {}
    for path in paths:
        try:
            status = path.stat()
            signature[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            signature[path] = (0, 0, 0)
    return signature


class FileRegistry(ClientRegistry):
    """The clients of a file, as it is now or was when it was last valid; thread-safe."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it is wrong, and there are no earlier clients.
        """
        self._path = path
        self._lock = threading.Lock()
        self._error = ""
        self._seen = _signature({path})
        self._look_at = time.monotonic() + LOOK_S
        super().__init__(clients=self._read())

    @property
    def clients(self) -> tuple[Client, ...]:
        # Nearly always only a clock read; and no thread waits for the one that reads the file.
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._look_at = time.monotonic() + LOOK_S
                self._lock.release()
        return self._clients

    @property
    def error(self) -> str:
        _ = self.clients  # the access checks the file
        return self._error

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
            self._clients = self._read()
        except Exception as error:  # of any kind: the earlier clients are still served
            told = isinstance(error, ConfigurationError)
            self._error = str(error) if told else f"it cannot be read: {type(error).__name__}"
            logger.error(
                "the file of clients is wrong; the clients stay those of before",
                extra={"error": self._error},
            )
            return
        self._error = ""
        logger.info("clients read again", extra={"clients": len(self._clients)})
