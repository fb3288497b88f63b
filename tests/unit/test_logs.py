"""What does a log line look like?"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from dispatcher.logs import configure

TOUCHED = ("", "celery.app.trace", "celery.beat", "celery.worker.strategy")


@contextmanager
def configured(log_format: Any, level: str = "INFO") -> Iterator[io.StringIO]:
    """What is logged while the block lasts; the process's own logging is put back at its end."""
    loggers = [logging.getLogger(name) for name in TOUCHED]
    before = [(logger, logger.level, logger.handlers[:], logger.filters[:]) for logger in loggers]
    lines = io.StringIO()
    try:
        configure(log_format=log_format, level=level)
        handler = logging.getLogger().handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(lines)
        yield lines
    finally:
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
