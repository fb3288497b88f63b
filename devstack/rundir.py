"""The lock on a run directory: one stack at a time holds it.

The kernel releases it when the stack's process dies.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from devstack import StackError

STOPPING = "stopping"


@contextmanager
def hold_run_dir(run_dir: Path) -> Iterator[IO[str]]:
    """Hold `run_dir`, made where it is missing, after waiting for a run that is stopping.

    Yield the locked file, which tells other runs about this one (`announce`).

    Raises:
        StackError: another run holds it and is not about to stop.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    run_dir.chmod(0o700)
    with (run_dir / "devstack.pid").open("a+") as file:
        _take(file, run_dir)
        announce(file)
        yield file


def announce(file: IO[str], note: str = "") -> None:
    """Tell other runs the holder's pid, and whether they need only wait (STOPPING)."""
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()} {note}")
    file.flush()


def _take(file: IO[str], run_dir: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        file.seek(0)
        pid, _, note = file.read().partition(" ")
    if note != STOPPING:
        raise StackError(
            f"already running in {run_dir} as pid {pid}: "
            "stop it first, or set USHER_RUN_DIR to another folder"
        )
    print(f"      waiting for the earlier run (pid {pid}) to stop", flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)
