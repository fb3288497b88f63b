"""What all commands share: --json, errors in one line, exit codes, examples."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NoReturn

import click

from dispatcher.connections import redis_url
from dispatcher.errors import (
    ConfigurationError,
    LedgerUnavailable,
    UnknownDispatch,
    UnreadableRecord,
    UsherError,
)
from dispatcher.settings import CommonSettings, load


class Exit(IntEnum):
    """The exit codes (docs/cli.md); the JSON of an error has the name in lower case."""

    OK = 0
    NEGATIVE = 1  # the session failed, the check found something; as an error: "refused"
    USAGE = 2
    NOT_FOUND = 3
    REDIS_UNREACHABLE = 4
    CONFIGURATION = 5
    TIME_IS_UP = 6
    INTERRUPTED = 130


class Problem(click.ClickException):
    """An error for people, with its exit code; with --json it is JSON on standard output."""

    as_json = False  # `Command` sets it

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has it as a class variable

    def show(self, file: Any = None) -> None:
        if self.as_json:
            code = Exit(self.exit_code)
            name = "refused" if code is Exit.NEGATIVE else code.name.lower()
            emit({"error": {"code": name, "message": self.message, "exit_code": code}})
        else:
            click.echo(f"Error: {printable(self.message)}", err=True)


def emit(data: Any, *, indent: int | None = 2) -> None:
    """Print JSON, with control characters escaped: names come from callers."""
    click.echo(json.dumps(data, indent=indent))


def printable(text: str) -> str:
    """Return `text` on one line without control characters: names come from callers."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def redis_address() -> str:
    """Return the hosts and ports of REDIS_URL, and nothing else of it."""
    return redis_url.address(load(CommonSettings).redis_url.get_secret_value())


def problem(error: UsherError) -> Problem:
    """Return what an operator is told of an error."""
    message, code = str(error), Exit.NEGATIVE
    match error:
        case LedgerUnavailable():
            message = f"{error} (it was asked at {redis_address()})"
            code = Exit.REDIS_UNREACHABLE
        case ConfigurationError():
            message = message.removeprefix("Usher cannot start, ")
            code = Exit.CONFIGURATION
        case UnknownDispatch():
            code = Exit.NOT_FOUND
        case UnreadableRecord():
            message = f"its record cannot be read ({error}); `show` says what to do"
    return Problem(message, code)


@contextlib.contextmanager
def _reported(*, as_json: bool) -> Iterator[None]:
    """Turn an error of the block into a `Problem`; wrong usage stays click's, but for JSON."""
    try:
        yield
    except (UsherError, Problem, click.UsageError) as error:
        if isinstance(error, UsherError):
            error = problem(error)
        elif as_json and isinstance(error, click.UsageError):
            error = Problem(error.format_message(), Exit.USAGE)
        if isinstance(error, Problem):
            error.as_json = as_json
        raise error from None


def leave(code: Exit) -> NoReturn:
    """End the process now, without Python's clean-up at exit, which may hang or crash."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


class Command(click.Command):
    """A command with --json and examples; an error is one line and an exit code."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON (docs/cli.md).")
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _reported(as_json="--json" in args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        # Log records are for the processes' logs; a command prints its own messages.
        logging.getLogger().addHandler(logging.NullHandler())
        try:
            with _reported(as_json=bool(ctx.params.get("as_json"))):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write_text(f"celery -A dispatcher dispatch {example}")
