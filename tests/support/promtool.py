"""Find or build promtool, Prometheus's tool that checks and tests alert rules.

`make monitoring` builds it where the machine has none. That takes longer than all the rest of
`make test`'s set-up, so `make test` uses one that is there and does without it otherwise.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from devstack import PROJECT_ROOT, StackError, go_build

_PROMTOOL = go_build.GoProgram(
    name="promtool",
    package="github.com/prometheus/prometheus/cmd/promtool",
    version="v0.316.0",  # Prometheus 3.16
    variable="USHER_PROMTOOL",
    # Without the clients of two dozen clouds, for Prometheus's service discovery.
    tags="remove_all_sd",
)


def found_promtool(environ: Mapping[str, str]) -> Path | None:
    """Return the one that USHER_PROMTOOL names, else the machine's, else one built here."""
    built = go_build.built_path(_PROMTOOL)
    return go_build.found(_PROMTOOL, environ) or (built if built.exists() else None)


def main() -> int:
    """Build promtool where it is missing, then run the tests that need it."""
    try:
        promtool = found_promtool(os.environ) or go_build.built(_PROMTOOL, os.environ)
    except StackError as error:
        print(f"usher: {error}", file=sys.stderr)
        return 1
    print(f"      promtool: {promtool}", flush=True)
    tests = [sys.executable, "-m", "pytest", "tests/stack/test_promtool.py"]
    environ = {**os.environ, "USHER_PROMTOOL": str(promtool)}
    return subprocess.run(tests, env=environ, cwd=PROJECT_ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
