"""Does Usher answer as its OpenAPI document says, whatever it is sent, with whatever key?

`make fuzz` sends some thousands of requests, `make test` some hundreds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.stacks import RunningStack, running_stack

# Of each operation; schemathesis adds the edge cases that it knows by itself.
EXAMPLES = int(os.environ.get("USHER_FUZZ_EXAMPLES", "5"))
LASTS_AT_MOST_S = 60 + 6 * EXAMPLES


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack whose agents stay out: hundreds of sessions are asked for, and end within seconds."""
    environ = {"USHER_DEADLINE_S": "3"}
    with running_stack(tmp_path_factory.mktemp("fuzzed"), environ=environ) as stack:
        stack.supervisorctl("stop", "usher:agent", "usher:flower")
        yield stack


def fuzz(stack: RunningStack, api_key: str, *options: str) -> str:
    """What schemathesis says at the end of its run."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    ran = subprocess.run(
        [
            *command,
            f"{stack.web_url}/openapi.json",
            f"--header=Authorization: Bearer {api_key}",
            f"--max-examples={EXAMPLES}",
            "--seed=1",
            "--checks=all",
            # What is cancelled can still be read, and is to be.
            "--exclude-checks=use_after_free",
            "--max-response-time=1",
            "--request-timeout=10",
            "--continue-on-failure",
            *options,
        ],
        cwd=stack.run_dir,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=LASTS_AT_MOST_S,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    return ran.stdout


def cases(said: str) -> int:
    """How many requests schemathesis has made up."""
    found = re.search(r"(\d[\d,]*) generated", said)
    assert found is not None, said
    return int(found[1].replace(",", ""))


@pytest.mark.long  # `make fuzz` runs it, and with many more
@pytest.mark.timeout(180 + LASTS_AT_MOST_S)
def test_every_answer_is_as_documented_and_within_a_second(fuzzed: RunningStack) -> None:
    said = fuzz(fuzzed, fuzzed.api_key)
    print(said[-600:])  # how many there were, for `make fuzz`
    assert cases(said) > 100 + 8 * EXAMPLES


@pytest.mark.long  # `make fuzz` runs it, and with many more
@pytest.mark.timeout(180 + LASTS_AT_MOST_S)
def test_every_answer_to_a_wrong_key_is_as_documented(fuzzed: RunningStack) -> None:
    said = fuzz(fuzzed, "usk_nobodys", "--phases=examples,coverage,fuzzing")
    assert cases(said) > 100


@pytest.mark.long  # like what has sent it
def test_nothing_that_was_sent_has_been_a_fault_of_ours(fuzzed: RunningStack) -> None:
    for name in ("web", "dispatch", "verify"):
        log = fuzzed.log(name)
        assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


def test_the_page_shows_every_operation_and_runs_no_script(stack: RunningStack) -> None:
    api = httpx.get(f"{stack.web_url}/openapi.json", trust_env=False).json()
    page = httpx.get(f"{stack.web_url}/docs", trust_env=False)
    assert page.headers["content-type"].startswith("text/html")
    for path, item in api["paths"].items():
        for method in item.keys() - {"parameters"}:
            assert f"{method.upper()} {path}" in page.text
    for forbidden in ("<script", "<style", " style=", " onclick=", "http://", "https://"):
        assert forbidden not in page.text.replace("wss://livekit.example.com", "")
    style = httpx.get(f"{stack.web_url}/docs.css", trust_env=False)
    assert style.headers["content-type"].startswith("text/css")
