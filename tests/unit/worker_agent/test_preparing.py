"""A job's process is ready before its job, and quiet about what nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys

from livekit.agents import JobProcess

from tests.support.values import run_python

# Connects to where nobody is, which the native library has a lot to say about; prints how many of
# its records came to Python. LIVEKIT_RTC_DEBUG is read for each record, so it shows them all.
_CONNECT = """
import asyncio, logging, os
from worker_agent.prewarm import prepare

class Counting(logging.Handler):
    count = 0
    def emit(self, record):
        Counting.count += 1

async def main():
    prepare()
    os.environ["LIVEKIT_RTC_DEBUG"] = "1"
    logging.getLogger("livekit").addHandler(Counting())
    logging.getLogger("livekit").setLevel(logging.DEBUG)
    from livekit import rtc
    try:
        await rtc.Room().connect("ws://127.0.0.1:1", "no-token")
    except rtc.ConnectError:
        pass
    await asyncio.sleep(1.5)  # the library hands its records over once a second
    print("records:", Counting.count, flush=True)
    os._exit(0)

asyncio.run(main())
"""


def _records(**environ: str) -> int:
    return int(run_python(_CONNECT, **environ).rpartition("records:")[2])


def test_the_native_library_hands_python_nothing_that_python_drops() -> None:
    assert _records() <= 2  # which it has of its own start, before it can be told


# Connects to where nobody is, and prints what a subprocess of the program's inherits.
_FAIL = """
import asyncio, os, subprocess
from livekit import rtc
from worker_agent.prewarm import prepare

async def main():
    prepare()
    try:
        await rtc.Room().connect("ws://127.0.0.1:1", "no-token")
    except rtc.ConnectError:
        pass
    inherited = subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()
    print([line for line in inherited if line.startswith("RUST_LOG=")], flush=True)
    os._exit(0)

asyncio.run(main())
"""


def _written(**environ: str) -> tuple[str, str]:
    """What the program prints, and what the native library writes to standard error."""
    own = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
    done = subprocess.run(
        [sys.executable, "-c", _FAIL],
        env={**own, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, done.stderr


def test_the_native_library_s_warnings_and_errors_are_written() -> None:
    inherited, written = _written()

    assert inherited == "[]\n"
    assert " WARN  livekit" in written
    assert " ERROR livekit_ffi::server::room] error while connecting" in written
    assert not any(level in written for level in (" INFO ", " DEBUG ", " TRACE "))
    assert "os_info" not in written  # which warns at each join of a machine without lsb_release


def test_an_operator_s_filter_stays() -> None:
    inherited, written = _written(RUST_LOG="error")

    assert inherited == "['RUST_LOG=error']\n"
    assert " ERROR " in written
    assert " WARN " not in written


def test_who_asks_for_the_native_library_s_log_gets_it() -> None:
    assert _records(LIVEKIT_RTC_DEBUG="1") > 20


_SET_UP = """
import functools
import os
import pickle
from livekit.agents import JobExecutorType, JobProcess
from livekit.rtc._ffi_client import FfiClient
from tests.unit.worker_agent.test_preparing import own_setup
from worker_agent.prewarm import set_up

process = JobProcess(executor_type=JobExecutorType.PROCESS, user_arguments=None, http_proxy=None)
pickle.loads(pickle.dumps(functools.partial(set_up, own_setup)))(process)
print(process.userdata, FfiClient._instance is not None, flush=True)
os._exit(0)  # the native library aborts at Python's end, once in some 30 times
"""


def own_setup(process: JobProcess) -> None:
    process.userdata["ready"] = True


def test_a_program_s_own_setup_still_runs_in_each_job_process() -> None:
    assert run_python(_SET_UP).split("\n")[-2] == "{'ready': True} True"
