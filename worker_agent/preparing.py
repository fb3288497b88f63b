"""What can a job's process have ready before there is a job?

Everything here is done once in a process: in one that waits for a job (livekit-agents' `setup_fnc`)
or, with the thread executor, in the agent server itself. What could not be prepared is done by the
job, later and slower.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from livekit.agents import JobProcess
from livekit.rtc import _ffi_client as native
from livekit.rtc.version import __version__

from dispatcher import garbage
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger import Step
from dispatcher.settings import CommonSettings, load
from dispatcher.store import Ledger

T = TypeVar("T")

_CONNECTIONS: Final = 2
_PROGRAMS: Final = Path(__file__).with_name("programs")
_LSB_RELEASE_S: Final = 2.0

_lock = threading.Lock()
_lines = threading.BoundedSemaphore(_CONNECTIONS)
_done = False


class Prepared:
    """A program's `setup_fnc` with our preparation before it; pickled for each job process."""

    def __init__(self, own: Callable[[JobProcess], Any] | None) -> None:
        self._own = own

    def __call__(self, process: JobProcess) -> Any:
        prepare()
        return None if self._own is None else self._own(process)


def prepare() -> None:
    """Make the native client and a connection to Redis, unless this process has them already.

    And ask once what the native library would ask at each join.
    """
    global _done
    with _lock:
        if _done:
            return
        _done = True
        _make_native_client()
        _remember_lsb_release()
        with contextlib.suppress(ConfigurationError, LedgerUnavailable):
            _ledger().warm_up(_CONNECTIONS)
        garbage.keep()


def ask(step: Step[T]) -> T:
    """Carry out `step` over one of the connections that this process has open.

    A job's own would take 4 ms of its join to open; in a burst those in line wait for one of these.

    Raises:
        ConfigurationError: a setting is missing or wrong.
        LedgerUnavailable: Redis did not answer.
    """
    with _lines:
        return _ledger().run(step)


@lru_cache(maxsize=1)
def _ledger() -> Ledger:
    common = load(CommonSettings)
    # Nobody holds a phone to their ear at this end either: a background process's time-out.
    return Ledger(common.model_copy(update={"redis_timeout_s": common.redis_worker_timeout_s}))


def _make_native_client() -> None:
    """Make livekit-rtc's native client, without its debug log going through Python.

    It is made at its first use and without a lock: jobs' threads that came at once made two, and
    the events of one of them reached nobody. A `connect` then hung, and after 15 s the native
    library ended the whole process.

    livekit-rtc (1.1.21) has every debug record of the native library, some 4,500 for a join, handed
    to Python, which drops them unless LIVEKIT_RTC_DEBUG is set: in the ten seconds after a
    burst of 30 an agent server took 2.5 % of a core for each room, and 0.4 % without
    (tests/measure/agent_cost.py). Only `livekit_ffi_initialize`
    can turn that off (livekit_ffi.h). What RUST_LOG names then goes to standard error, as text;
    nothing by default: every line of ours is JSON, and what fails reaches Python as an error.
    """
    if native.FfiClient._instance is not None or "LIVEKIT_RTC_DEBUG" in os.environ:
        _ = native.FfiClient.instance  # the program has made it, or wants to read all of it
        return
    os.environ.setdefault("RUST_LOG", "off")  # read when the library is first initialized
    library = getattr(native.FfiClient.instance, "_ffi_lib", None)
    if library is None:
        return  # another livekit-rtc, in a program's own environment: noisy, and no worse
    library.livekit_ffi_dispose()
    library.livekit_ffi_initialize(
        native.ffi_event_callback, False, b"python", __version__.encode("ascii")
    )


def _remember_lsb_release() -> None:
    """Have `lsb_release -a` answered by a script that knows the answer.

    livekit-rtc's native library (1.1.21, by the crate os_info) runs it for every room, to tell
    LiveKit the name of the system: five programs and 12 ms of a processor on Debian. Where there is
    none, as in most containers, nothing is done. This process's PATH is changed for it; whatever
    else somebody asks that name is asked of the machine's own.
    """
    program = shutil.which("lsb_release")
    if program is None or "USHER_LSB_RELEASE" in os.environ:
        return  # or the agent server has asked, whose job process this is
    try:
        said = subprocess.run(
            [program, "-a"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_LSB_RELEASE_S,
            check=True,
        ).stdout.decode()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return  # then it is asked each time, as before
    os.environ |= {
        "USHER_LSB_RELEASE": said.rstrip("\n"),
        "USHER_LSB_RELEASE_PROGRAM": os.path.abspath(program),
        "PATH": os.pathsep.join([str(_PROGRAMS), os.environ.get("PATH", os.defpath)]),
    }
