"""What does a log line look like?"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from devstack import PROJECT_ROOT
from dispatcher.observability.logs import configure

TOUCHED = ("", "celery.app.trace", "celery.beat", "celery.worker.strategy")


@contextmanager
def configured(log_format: Any, level: str = "INFO") -> Iterator[io.StringIO]:
    """What is logged while the block lasts; the process's own logging is put back at its end."""
    loggers = [logging.getLogger(name) for name in TOUCHED]
    before = [(logger, logger.level, logger.handlers[:], logger.filters[:]) for logger in loggers]
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    lines = io.StringIO()
    try:
        configure(log_format=log_format, level=level)
        handler = logging.getLogger().handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(lines)
        yield lines
    finally:
        logging.captureWarnings(False)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        for logger, was_level, handlers, filters in before:
            logger.setLevel(was_level)
            logger.handlers[:] = handlers
            logger.filters[:] = filters


def only_line(lines: io.StringIO) -> dict[str, Any]:
    (line,) = lines.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_json_line_has_the_event_its_level_logger_time_and_extras() -> None:
    with configured("json") as lines:
        logging.getLogger("some.logger").warning(
            "no %s", "agent", extra={"room": "röom", "generation": 2}
        )

    line = only_line(lines)
    moment = datetime.fromisoformat(line.pop("timestamp"))
    assert moment.utcoffset() is not None
    assert line == {
        "event": "no agent",
        "level": "warning",
        "logger": "some.logger",
        "room": "röom",
        "generation": 2,
    }


def test_a_text_line_has_the_same_fields() -> None:
    with configured("text") as lines:
        logging.getLogger("some.logger").info("joined", extra={"time_to_join_ms": 312})

    (line,) = lines.getvalue().splitlines()
    for part in ("info", "some.logger", "joined", "time_to_join_ms=312"):
        assert part in line


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_exception_is_logged_with_its_traceback(log_format: str) -> None:
    with configured(log_format) as lines:
        try:
            raise ValueError("the cause")
        except ValueError:
            logging.getLogger("some.logger").exception("it broke")

    text = lines.getvalue()
    assert "it broke" in text
    assert "ValueError: the cause" in text
    assert "Traceback" in text


def test_a_json_line_stays_one_line_whatever_is_logged() -> None:
    with configured("json") as lines:
        logging.getLogger("some.logger").info("two\nlines", extra={"more": "a\nb"})

    assert only_line(lines)["event"] == "two\nlines"


def test_celerys_data_is_dropped_and_its_message_is_not() -> None:
    with configured("json") as lines:
        logging.getLogger("celery.app.trace").info(
            "Task %s succeeded", "x", extra={"data": {"name": "dispatcher.tasks.verify_dispatch"}}
        )

    line = only_line(lines)
    assert line["event"] == "Task x succeeded"
    assert "data" not in line


def test_the_sweep_once_a_second_is_not_logged() -> None:
    with configured("json") as lines:
        logging.getLogger("celery.app.trace").info(
            "Task succeeded", extra={"data": {"name": "dispatcher.tasks.sweep"}}
        )
        logging.getLogger("celery.beat").info("Scheduler: Sending due task sweep")
        logging.getLogger("celery.worker.strategy").info("Task received")

    assert lines.getvalue() == ""


def test_celerys_warnings_are_logged() -> None:
    with configured("json") as lines:
        logging.getLogger("celery.beat").warning("the clock went back")

    assert only_line(lines)["level"] == "warning"


def test_the_level_holds() -> None:
    with configured("json", level="WARNING") as lines:
        logging.getLogger("some.logger").info("not said")

    assert lines.getvalue() == ""


def test_configuring_twice_logs_once() -> None:
    with configured("json"), configured("json") as lines:
        logging.getLogger("some.logger").info("once")

    assert only_line(lines)["event"] == "once"


UNCAUGHT = """
import signal, sys, threading, warnings
from dispatcher.observability.logs import configure, say
configure(log_format="json", level="INFO")
warnings.warn("think twice")
def fail():
    raise ValueError("in a thread")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Failing:
    def __del__(self):
        raise ValueError("in the end of an object")
Failing()
signal.signal(signal.SIGUSR1, lambda *_: say("by a signal"))
signal.raise_signal(signal.SIGUSR1)
raise ValueError("in the program")
"""


def test_what_python_itself_would_print_is_a_line_of_json_too() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", UNCAUGHT],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [json.loads(line) for line in ran.stderr.splitlines()]

    assert ran.stdout == ""
    told = [
        "think twice",
        "in a thread",
        "in the end of an object",
        "by a signal",
        "in the program",
    ]
    texts = [line["event"] + line.get("exception", "") for line in lines]
    assert [any(part in text for text in texts) for part in told] == [True] * len(told)
    assert [line["level"] for line in lines] == ["warning", "error", "error", "info", "critical"]
    assert len(lines) == len(told)
