"""Files of the dispatches accepted without Redis, for other web processes of the same machine.

If the process that accepted a dispatch is killed before Redis works again, another web process
finds its file at its next look (`docs/decisions/0135-promises-in-files.md`).

A file is one promise, `<dispatch id>.<process id>`, readable for this user alone: it has the
agent's metadata in it. It is deleted once the ledger has the dispatch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dispatcher.connections import redis_url
from dispatcher.domain.models import NewDispatch

logger = logging.getLogger(__name__)

# About as long as a participant's token is valid: after that its holder cannot join.
TOO_OLD_S: Final = 600.0


def directory_for(url: str) -> Path:
    """Return where the web processes of one machine keep promises for the Redis at `url`."""
    place = redis_url.address(url) + urlsplit(url).path  # with its database, and without passwords
    name = sha256(place.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"usher-promises-{os.getuid()}-{name}"


class Spool:
    """The promises of one machine's web processes in one directory; thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            _make_private(directory)
        except OSError as error:
            logger.warning("promises are kept in memory alone: %s; set TMPDIR to a folder", error)

    def keep(self, new: NewDispatch) -> None:
        """Write the promise down; where that cannot be done it is in this process alone."""
        path = self._path(new.dispatch_id)
        fields = asdict(new)
        del fields["generation"]  # it is 1; earlier releases cannot read a file with it
        try:
            _make_private(self._directory)  # again: what cleans /tmp may have deleted it
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(fields, file)
        except OSError as error:
            logger.warning(
                "a promise is in this process alone, and lost if it is killed",
                extra={"dispatch_id": new.dispatch_id, "error": str(error)},
            )

    def drop(self, dispatch_id: str) -> None:
        """Delete the file of a dispatch that is in the ledger, or has ended."""
        with contextlib.suppress(OSError):
            self._path(dispatch_id).unlink(missing_ok=True)

    def orphans(self, *, known: Callable[[str], bool]) -> Iterator[tuple[NewDispatch, float]]:
        """Yield promises of processes that are gone, and their age in s; they are ours from now on.

        `known` tells those that this process keeps already: in a restarted container it may have
        the process id of one that is gone.
        """
        if not _is_private(self._directory):
            return
        for path in sorted(self._directory.glob("dsp_*.*")):
            dispatch_id, _, pid = path.name.partition(".")
            with contextlib.suppress(OSError, ValueError):
                kept = known(dispatch_id) if int(pid) == os.getpid() else is_alive(int(pid))
                age_s = time.time() - path.stat().st_mtime
                if age_s > TOO_OLD_S:
                    path.unlink()
                    logger.error(
                        "a promise was never written; its caller cannot come any more",
                        extra={"dispatch_id": dispatch_id},
                    )
                elif not kept and (new := self._take(path, dispatch_id)):
                    yield new, age_s

    def _take(self, path: Path, dispatch_id: str) -> NewDispatch | None:
        own = self._path(dispatch_id)
        path.rename(own)  # of two processes that find it one succeeds; the other's rename fails
        try:
            return NewDispatch(**json.loads(own.read_text()))
        except (ValueError, TypeError):
            logger.exception("a promise cannot be read", extra={"dispatch_id": dispatch_id})
            own.unlink()
            return None

    def _path(self, dispatch_id: str) -> Path:
        return self._directory / f"{dispatch_id}.{os.getpid()}"


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _make_private(directory: Path) -> None:
    """Make the directory.

    Raises:
        OSError: it cannot be made, or is not this user's alone.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory):
        raise PermissionError(f"{directory} is not this user's alone; delete it")


def _is_private(directory: Path) -> bool:
    """Return true for a directory that only this user can read and write."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    private = not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and private
