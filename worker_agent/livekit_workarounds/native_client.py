"""Make livekit-rtc's native client once, and without its debug log going through Python.

For livekit-rtc 1.1 (1.1.21). It has the native library hand every record to Python, some 4,500 for
a join, and drops those of level DEBUG unless LIVEKIT_RTC_DEBUG is set
(https://github.com/livekit/python-sdks/blob/main/livekit-rtc/livekit/rtc/_ffi_client.py). Without
`capture_logs` the library writes what RUST_LOG names to standard error itself
(https://github.com/livekit/rust-sdks/blob/main/livekit-ffi/src/server/logger.rs). Figures:
docs/decisions/0040-prepared-job-processes.md.

Guard: with other names the client stays as livekit-rtc makes it, and the log says so.
Remove when livekit-rtc has a level for what it hands over, and makes its client behind a lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from livekit.rtc.version import __version__

from worker_agent.livekit_workarounds import unknown_release

_VARIABLE: Final = "RUST_LOG"
# os_info warns at each join of a machine without `lsb_release` (or with ours, see lsb_release.py),
# and then reads /etc/os-release, which is as good. A normal join has no other warning.
_WARNINGS_AND_ERRORS: Final = "warn,os_info=error"
# A record must match the regular expression (Rust's, without look-ahead) behind the slash: nowhere
# the beginning of a JSON web token. livekit-server repeats the token in its 401, and the library
# writes that in its "authentication rejected".
_WITHOUT_TOKENS: Final = "/^(?:[^e]|e(?:e|ye)*(?:[^ey]|y[^eJ]))*(?:e(?:e|ye)*y?)?$"


def make() -> None:
    """Make the native client, unless the program has made it.

    livekit-rtc makes it at its first use and without a lock: jobs' threads that came at once made
    two, and the events of one were lost (docs/decisions/0043-one-native-client.md).
    """
    try:
        from livekit.rtc import _ffi_client as native

        if native.FfiClient._instance is not None or "LIVEKIT_RTC_DEBUG" in os.environ:
            _ = native.FfiClient.instance  # the program has made it, or wants to read all of it
            return
        with _filter_for_the_library():
            library = native.FfiClient.instance._ffi_lib
        library.livekit_ffi_dispose()
        library.livekit_ffi_initialize(
            native.ffi_event_callback, False, b"python", __version__.encode("ascii")
        )
    except (AttributeError, ImportError):
        unknown_release.warn("livekit", "its native client stays as livekit-rtc makes it")


@contextmanager
def _filter_for_the_library() -> Iterator[None]:
    """A block in which RUST_LOG is set; the library reads it once, when it is first initialized.

    A value of the operator's stays, but that records with tokens are left out; one with an
    expression of its own stays as it is.
    """
    before = os.environ.get(_VARIABLE)
    wanted = _WARNINGS_AND_ERRORS if before is None else before
    os.environ[_VARIABLE] = wanted if "/" in wanted else wanted + _WITHOUT_TOKENS
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
