"""Is a job's process ready before its job, and quiet about what nobody reads?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from livekit.agents import JobProcess

ROOT = Path(__file__).parents[2]

# Connects to where nobody is, which the native library has a lot to say about; prints how many of
# its records came to Python. LIVEKIT_RTC_DEBUG is read for each record, so it shows them all.
_CONNECT = """
import asyncio, logging, os
from worker_agent.preparing import prepare

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


def _run(program: str, **environ: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def _records(**environ: str) -> int:
    return int(_run(_CONNECT, **environ).rpartition("records:")[2])


def test_the_native_library_hands_python_nothing_that_python_drops() -> None:
    assert _records() <= 2  # which it has of its own start, before it can be told


def test_who_asks_for_the_native_library_s_log_gets_it() -> None:
    assert _records(LIVEKIT_RTC_DEBUG="1") > 20


_SET_UP = """
import os
import pickle
from livekit.agents import JobExecutorType, JobProcess
from livekit.rtc._ffi_client import FfiClient
from tests.unit.test_preparing import own_setup
from worker_agent.preparing import Prepared

process = JobProcess(executor_type=JobExecutorType.PROCESS, user_arguments=None, http_proxy=None)
pickle.loads(pickle.dumps(Prepared(own_setup)))(process)
print(process.userdata, FfiClient._instance is not None, flush=True)
os._exit(0)  # the native library aborts at Python's end, once in some 30 times
"""


def own_setup(process: JobProcess) -> None:
    process.userdata["ready"] = True


def test_a_program_s_own_setup_still_runs_in_each_job_process() -> None:
    assert _run(_SET_UP).split("\n")[-2] == "{'ready': True} True"
