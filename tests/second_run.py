"""CI's second run of the few tests that failed in the first.

A test on real processes can be disturbed by the machine that it runs on: one of two thousand in
every few runs. CI runs such a test again, alone, and prints its name, for a maintainer to mend it:
once, or three times where it is about a promise (`tests/faults`, `tests/several`). There is no
second run when many tests fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from devstack import PROJECT_ROOT

AT_MOST: Final = 3
# Tests that no session is lost, doubled or unexplained: these have to pass so often.
_PROMISES: Final = ("tests/faults/", "tests/several/")
PROMISES_TIMES: Final = 3
_LAST_FAILED: Final = PROJECT_ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"


def why_not(failed: Sequence[str]) -> str:
    """Return why those tests are not run again; empty when they may be."""
    if not failed:
        return "no test has failed, so something else has"
    if len(failed) > AT_MOST:
        return f"{len(failed)} tests have failed; one disturbed test is no excuse for so many"
    if broken := [name for name in failed if "::" not in name]:
        return f"{broken[0]} cannot be collected"
    return ""


def times(failed: Sequence[str]) -> int:
    """Return how often those tests have to pass."""
    return PROMISES_TIMES if any(name.startswith(_PROMISES) for name in failed) else 1


def last_failed(path: Path = _LAST_FAILED) -> list[str]:
    """Return the ids of the tests that failed when pytest was last run here."""
    return sorted(json.loads(path.read_text())) if path.exists() else []


def main() -> int:
    """Run them again; return 0 if all of them pass now."""
    failed = last_failed()
    if reason := why_not(failed):
        print(f"no second run: {reason}", file=sys.stderr)
        return 1
    for number in range(times(failed)):
        print(f"again, alone ({number + 1} of {times(failed)}):", *failed, sep="\n  ", flush=True)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *failed]
        if code := subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode:
            return code
    print("PASSED ONLY AT THE SECOND RUN, mend:", *failed, sep="\n  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
