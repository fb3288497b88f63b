"""Hide `lsb_release` from livekit-rtc's native library, which runs it for each connection.

For livekit-rtc 1.1 (1.1.21). Its crate os_info runs `lsb_release -a` for the system's name: on
Debian a shell script with four more programs, 13 ms of a processor in a thread that other
connections wait for
(https://github.com/stanislav-tkach/os_info/blob/master/os_info/src/linux/lsb_release.rs). Where it
cannot be run os_info reads /etc/os-release. So while it is hidden the C library's PATH begins with
`programs/` beside this file, whose `lsb_release` has no `#!` line: the kernel refuses it.
`os.environ` stays as it is. A subprocess that is started in just that time inherits that PATH; its
shells, and `execvp`, run the file as a script, which hands over to the machine's own. Figures:
docs/decisions/0040-prepared-job-processes.md.

Guard: no private name is used, and a library that no longer runs it is not affected.
Remove when os_info reads /etc/os-release first, or livekit-rtc asks once.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

_PROGRAMS: Final = Path(__file__).with_name("programs")


def hide() -> None:
    """Hide it, where there is one.

    Only the value of a variable that is there changes: glibc swaps one pointer for that and frees
    nothing, so a `getenv` of another thread at that moment reads the one value or the other.
    """
    path = os.environ.get("PATH")
    if path and sys.platform == "linux" and shutil.which("lsb_release", path=path):
        os.putenv("PATH", f"{_PROGRAMS}{os.pathsep}{path}")


def show() -> None:
    """Give the C library the PATH that `os.environ` has by now; one that is unset is so in both."""
    if path := os.environ.get("PATH"):
        os.putenv("PATH", path)
