"""Is a job's process ready before its job, and quiet about what nobody reads?"""

from __future__ import annotations

import os
from pathlib import Path

from livekit.agents import JobProcess

from tests.support import run_python

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


def _records(**environ: str) -> int:
    return int(run_python(_CONNECT, **environ).rpartition("records:")[2])


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
    assert run_python(_SET_UP).split("\n")[-2] == "{'ready': True} True"


# Connects to where nobody is, in several tries; before each the library asks for the system's name.
_ASK = """
import asyncio, os, subprocess, sys
from livekit import rtc
from worker_agent.preparing import prepare

async def main():
    os.environ.pop("USHER_LSB_RELEASE", None)  # of whoever runs the tests
    if sys.argv[1:] == ["prepared"]:
        prepare()
    try:
        await rtc.Room().connect("ws://127.0.0.1:1", "no-token")
    except rtc.ConnectError:
        pass
    for asked in (["-a"], ["-c", "-s"]):
        said = subprocess.run(["lsb_release", *asked], stdout=subprocess.PIPE).stdout
        print(said.decode(), end="")
    sys.stdout.flush()
    os._exit(0)

asyncio.run(main())
"""


def _asked(directory: Path, program: str, *arguments: str) -> tuple[str, int]:
    """What is printed with that `lsb_release` before all others, and how often it has run."""
    directory.mkdir()
    own, ran = directory / "lsb_release", directory / "ran"
    own.write_text(f'#!/bin/sh\necho "$*" >> {ran}\n{program}\n')
    own.chmod(0o755)
    path = f"{directory}{os.pathsep}{os.environ['PATH']}"
    said = run_python(_ASK, *arguments, PATH=path)
    return said, ran.read_text().splitlines().count("-a")


def test_the_system_s_name_is_asked_for_once_and_not_at_each_join(tmp_path: Path) -> None:
    says = "printf 'Distributor ID:\\tHouse %s\\nRelease:\\t1\\n' \"$*\""

    said, ran = _asked(tmp_path / "prepared", says, "prepared")
    as_it_is, ran_as_it_is = _asked(tmp_path / "plain", says)

    assert (
        said
        == as_it_is
        == ("Distributor ID:\tHouse -a\nRelease:\t1\nDistributor ID:\tHouse -c -s\nRelease:\t1\n")
    )
    assert ran == 1
    assert ran_as_it_is > 2  # or the library has stopped asking, and ours can go


def test_a_system_that_does_not_know_its_name_is_asked_as_before(tmp_path: Path) -> None:
    said, ran = _asked(tmp_path / "broken", "echo sorry; exit 3", "prepared")

    assert said == "sorry\nsorry\n"
    assert ran > 3
