"""`dispatch selftest`: test a running deployment with real sessions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from dispatcher.cli.command import Command, Exit, Problem, emit, leave, printable
from dispatcher.cli.options import Duration
from dispatcher.cli.rendering import styled, table
from dispatcher.selftest.deployment import Deployment
from dispatcher.selftest.results import Outcome, Result, junit, passed
from dispatcher.selftest.running import Options, SelfTest

_COLOURS: Final = {Outcome.OK: "green", Outcome.FAILED: "red", Outcome.SKIPPED: "yellow"}


@click.command(
    "selftest",
    cls=Command,
    examples=(
        "selftest --url https://usher.example.com --key-file /run/secrets/usher-key",
        "selftest --concurrency 50 --junit selftest.xml",
    ),
)
@click.option(
    "--url",
    envvar=("USHER_URL", "WEB_URL"),
    required=True,
    show_envvar=True,
    help="Where the deployment's web is.",
)
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with a secret key of the client to test with; else USHER_API_KEY (or API_KEY).",
)
@click.option("--agent", default="", help="The client's default one if left out.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Sessions at once.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=Duration(),
    default="20s",
    show_default=True,
    help="How long an agent may take to join.",
)
@click.option(
    "--junit",
    "junit_path",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a JUnit file there.",
)
def command(
    url: str,
    key_file: Path | None,
    agent: str,
    concurrency: int,
    deadline_s: float,
    junit_path: Path | None,
    as_json: bool,
) -> None:
    """Test a running deployment with real sessions.

    Single dispatch and its times, the agent as a participant in the room sees it, idempotency,
    many at once, the counters of the agent servers, cancelling, and that nothing is left: it ends
    all its sessions. Ends with 0 when all is well, with 1 when something failed.
    """
    key = _key(key_file)
    options = Options(
        agent=agent,
        concurrency=concurrency,
        deadline_s=deadline_s,
        operator_auth=os.environ.get("USHER_OPERATOR_AUTH", ""),
    )
    began = time.monotonic()
    results, interrupted = asyncio.run(_run(url, key, options, began))
    took_s = time.monotonic() - began
    if junit_path is not None:
        junit_path.write_text(junit(results, took_s=took_s), "utf-8")
    if as_json:
        emit(
            {
                "url": url,
                "passed": passed(results),
                "took_s": round(took_s, 3),
                "interrupted": interrupted,
                "checks": [asdict(result) for result in results],
            }
        )
    else:
        _print(results, took_s, interrupted=interrupted)
    code = Exit.OK if passed(results) else Exit.NEGATIVE
    # LiveKit's native library (livekit 1.1.21) calls Python from its threads until the end, and
    # aborts the process once the interpreter is gone.
    leave(Exit.INTERRUPTED if interrupted else code)


def _key(path: Path | None) -> str:
    key = os.environ.get("USHER_API_KEY") or os.environ.get("API_KEY") or ""
    if path is not None:
        key = path.read_text("utf-8").strip()
    if not key:
        raise Problem(
            "no key to test with: set USHER_API_KEY to a secret key of a client, or name a file "
            "with --key-file (an option would show it to everybody on this machine)",
            Exit.CONFIGURATION,
        )
    if not (key.isascii() and key.isprintable()):
        raise Problem("the key is none: it has characters that no key has", Exit.CONFIGURATION)
    return key


async def _run(url: str, key: str, options: Options, began: float) -> tuple[list[Result], bool]:
    def progress(text: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {printable(text)}", err=True)

    async with contextlib.aclosing(Deployment(url, key)) as deployment:
        test = SelfTest(deployment, options, progress)
        running = asyncio.create_task(test.run())
        stopping = False

        def stop() -> None:
            nonlocal stopping
            if not stopping:
                stopping = True
                progress("interrupted: ending what was started")
                running.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            await running
        except asyncio.CancelledError:
            if not stopping:
                raise
        return test.results, stopping


def _print(results: list[Result], took_s: float, *, interrupted: bool) -> None:
    rows = [
        (
            result.name,
            styled(result.outcome, _COLOURS[result.outcome]),
            f"{result.took_s:.1f} s",
            result.message,
        )
        for result in results
    ]
    click.echo("\n".join(table(("check", "result", "took", ""), rows)))
    if interrupted:
        verdict, colour = "INTERRUPTED", "yellow"
    elif passed(results):
        verdict, colour = "OK", "green"
    else:
        verdict, colour = "FAILED", "red"
    failed = sum(result.outcome is Outcome.FAILED for result in results)
    told = f": {failed} of {len(results)} checks failed" if failed else ""
    click.echo(click.style(f"{verdict}{told}, after {took_s:.1f} s", fg=colour, bold=True))
