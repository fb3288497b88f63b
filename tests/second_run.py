"""CI's second run of the few tests that failed in the first.

A test on real processes can be disturbed by the machine that it runs on: one of two thousand in
every few runs. CI runs such a test again, alone, and prints its name, for a maintainer to mend it.
There is no second run when many tests fail, or one about a promise (`tests/faults`,
`tests/several`).
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
# Tests that no session is lost, doubled or unexplained; one failure is one too many.
_PROMISES: Final = ("tests/faults/", "tests/several/")
_LAST_FAILED: Final = PROJECT_ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"


def why_not(failed: Sequence[str]) -> str:
    """Return why those tests are not run again; empty when they may be."""
    if not failed:
        return "no test has failed, so something else has"
    if len(failed) > AT_MOST:
        return f"{len(failed)} tests have failed; one disturbed test is no excuse for so many"
    if promises := [name for name in failed if name.startswith(_PROMISES)]:
        return f"{promises[0]} is about a promise, which nothing may break even once"
    if broken := [name for name in failed if "::" not in name]:
        return f"{broken[0]} cannot be collected"
    return ""


def last_failed(path: Path = _LAST_FAILED) -> list[str]:
    """Return the ids of the tests that failed when pytest was last run here."""
    return sorted(json.loads(path.read_text())) if path.exists() else []


def main() -> int:
    """Run them again; return 0 if all of them pass now."""
    failed = last_failed()
    if reason := why_not(failed):
        print(f"no second run: {reason}", file=sys.stderr)
        return 1
    print("once more, alone:", *failed, sep="\n  ", flush=True)
    code = subprocess.run(
        [sys.executable, "-m", "pytest", *failed], cwd=PROJECT_ROOT, check=False
    ).returncode
    if code == 0:
        print("PASSED ONLY AT THE SECOND RUN, mend:", *failed, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
