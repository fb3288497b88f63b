"""The processes of a stack: find them by a mark in their environment, and end them."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import psutil

# In the environment of every process of a stack, and of no other: USHER_RUN_DIR is no such mark,
# as a shell may export it.
MARK_VARIABLE = "USHER_STACK_OF"

_PR_SET_PDEATHSIG = 1
# Loaded here because a child between fork and exec must not import anything.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, even by SIGKILL.

    Linux only; elsewhere leftovers of a killed run are ended by the next run.
    """
    if _libc is not None and _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def processes_of_stack(run_dir: Path) -> list[psutil.Process]:
    """Return every process that a stack with this run directory has started, and their children."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _mark(process) == str(run_dir)
    ]


def end_processes_of_stack(run_dir: Path, *, grace_s: float) -> int:
    """End every process of the stack by SIGTERM, after `grace_s` by SIGKILL; return how many."""
    ended: set[psutil.Process] = set()
    # Repeated, as a process may have started another meanwhile; bounded, as a process that waits
    # for a broken disk cannot be killed.
    for _ in range(5):
        found = processes_of_stack(run_dir)
        if not found:
            break
        ended.update(found)
        if grace_s > 0:
            for process in found:
                _signal(process, signal.SIGTERM)
            _, found = psutil.wait_procs(found, timeout=grace_s)
            grace_s = 0
        for process in found:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(found, timeout=5)
    return len(ended)


def _mark(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get(MARK_VARIABLE)
    except (psutil.Error, OSError):
        return None  # gone by now, or another user's


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
