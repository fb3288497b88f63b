"""Connect to a room without running the five programs of `lsb_release -a`.

For livekit-rtc 1.1 (1.1.21). Its native library asks the crate os_info for the system's name at
each connection, to tell LiveKit, and os_info runs `lsb_release -a`, which on Debian is a shell
script with four more programs: 13 ms of a processor, in a thread that other connections wait for
(https://github.com/stanislav-tkach/os_info/blob/master/os_info/src/linux/lsb_release.rs). Where it
cannot be run, as in most containers, os_info reads /etc/os-release.

So while a room of this process connects, the C library's PATH begins with `programs/` beside this
file: the `lsb_release` there has no `#!` line, so the kernel refuses it and os_info reads the file.
`os.environ` stays as it is, and with it where Python looks for a program. A subprocess that is
started in just that time inherits that PATH; its shells, and `execvp`, run the file as a script,
which hands over to the machine's own. Figures: docs/decisions/0040-prepared-job-processes.md.

Guard: no private name is used. On another system than Linux, and where there is no `lsb_release`,
nothing is done; a library that no longer runs it is not affected.
Remove when os_info reads /etc/os-release first, or livekit-rtc asks once.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

_PROGRAMS: Final = Path(__file__).with_name("programs")

_lock = threading.Lock()
_connecting = 0


@contextmanager
def not_run() -> Iterator[None]:
    """A block in which the native library does not get `lsb_release` to run. Thread-safe.

    Only the value of a variable that is there changes: glibc swaps one pointer for that and frees
    nothing, so a `getenv` of another thread at that moment reads the one value or the other.
    """
    global _connecting
    path = os.environ.get("PATH")
    if path is None or not _has_lsb_release(path):
        yield
        return
    with _lock:
        _connecting += 1
        os.putenv("PATH", f"{_PROGRAMS}{os.pathsep}{path}")
    try:
        yield
    finally:
        with _lock:
            _connecting -= 1
            if not _connecting:
                _restore()


def _restore() -> None:
    """Give the C library the PATH that `os.environ` has by now."""
    path = os.environ.get("PATH")
    if path is None:
        os.unsetenv("PATH")
    else:
        os.putenv("PATH", path)


@lru_cache(maxsize=8)
def _has_lsb_release(path: str) -> bool:
    """True where there is one to keep from running, and a C library that reads this PATH."""
    return sys.platform == "linux" and shutil.which("lsb_release", path=path) is not None
