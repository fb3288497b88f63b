"""Run the operator's commands, `celery -A dispatcher dispatch ...`, against a stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack import PROJECT_ROOT
from tests.support.stacks import RunningStack

CELERY = (str(Path(sys.executable).with_name("celery")), "-A", "dispatcher", "dispatch")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Parse its standard output as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Parse each line of its standard output as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


def operator_environment(stack: RunningStack) -> dict[str, str]:
    """Return the environment after `set -a; . stack.env`, with no other variable of Usher's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
    }
    values = (stack.run_dir / "stack.env").read_text().split()
    return kept | dict(value.split("=", maxsplit=1) for value in values)


class Shell:
    """A shell with the environment of a stack; no output may contain a secret of the stack."""

    def __init__(self, stack: RunningStack, **environ: str) -> None:
        self.environ = operator_environment(stack) | environ
        self._secrets = [
            *(stack.api_key, stack.publishable_key, stack.livekit_api_secret),
            *(stack.flower_password, self.environ.get("OPERATOR_PASSWORD") or stack.api_key),
        ]

    @contextmanager
    def started(self, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command during the block; kill it at the end if it still runs."""
        with subprocess.Popen(
            [*CELERY, *arguments],
            cwd=PROJECT_ROOT,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def end(self, process: subprocess.Popen[str], *, within_s: float) -> Ran:
        """Wait until the command ends by itself."""
        out, err = process.communicate(timeout=within_s)
        for secret in self._secrets:
            assert secret not in out + err
        assert "Traceback" not in out + err, err
        return Ran(code=process.returncode, out=out, err=err)

    def run(
        self, *arguments: str, within_s: float = 60, environ: Mapping[str, str] | None = None
    ) -> Ran:
        """Run a command to its end."""
        with self.started(*arguments, **(environ or {})) as process:
            return self.end(process, within_s=within_s)
