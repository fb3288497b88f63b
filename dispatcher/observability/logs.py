"""Configure logging: one line of JSON per event in production, readable text in development.

Both have the same fields. structlog formats; modules log with the standard `logging` module and
`extra`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from dispatcher.observability import redaction

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

logger = logging.getLogger(__name__)

# Celery logs that each task was received and that it succeeded, and repeats the line's content in a
# field "data"; beat logs each sweep that it sends. Changes of a dispatch are logged where they are
# made, and failures are warnings.
_QUIET = (
    "aiohttp.access",  # probes of the agent server's health, some every second
    "celery.beat",
    "celery.worker.request",  # sweeps that have expired
    "celery.worker.strategy",
)
_STDERR = 2
_SWEEP = "dispatcher.tasks.sweep"


def _without_sweeps(record: logging.LogRecord) -> bool:
    data = record.__dict__.pop("data", None)
    return not (isinstance(data, dict) and data.get("name") == _SWEEP)


def _with_traceback(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep a traceback that is text already; structlog only looks for exceptions."""
    record: logging.LogRecord = event["_record"]
    text = record.exc_text
    # The message of a job process's record has the traceback already.
    if text and not record.exc_info and text not in event["event"]:
        event["exception"] = text
    return event


def formatter(log_format: Literal["json", "text"]) -> logging.Formatter:
    """Return the formatter for one of the two formats."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _with_traceback,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    if log_format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain tracebacks: structlog's own show local variables, and with them secrets.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def configure(*, log_format: Literal["json", "text"], level: str) -> None:
    """Send every logger of this process to standard error in one format.

    Warnings and uncaught errors, which Python itself would print there, are logged too. Secrets are
    removed from all records.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    redaction.guard(root)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").addFilter(_without_sweeps)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _ended_thread


def say(text: str, _: object = None) -> None:
    """Log `text` from within a signal handler, which may have interrupted a logging call."""
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, text.strip(), (), None)
    for handler in logging.getLogger().handlers:
        handler.filter(record)
        os.write(_STDERR, (handler.format(record) + "\n").encode())


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logger.critical("ends with an unexpected error", exc_info=(kind, error, traceback))


def _ended_thread(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value
    if error is not None and not isinstance(error, SystemExit):
        logger.error("a thread has ended with an unexpected error", exc_info=error)


def _unraisable(args: UnraisableHookArgs) -> None:
    # Without the object, whose repr may have secrets.
    logger.error("an error that could not be raised", exc_info=args.exc_value)
