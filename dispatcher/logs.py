"""What does a log line look like?

One line of JSON per event in production, readable text in development; the same fields in both.
structlog does the formatting; everybody logs with the standard `logging` module and `extra`.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

# Celery says of every task that it was received and that it succeeded, and repeats the whole of it
# in a field "data"; beat says when it sends the sweep, once a second. What happens to a dispatch is
# logged by whoever does it, and failures are warnings.
_QUIET = ("celery.beat", "celery.worker.strategy")
_SWEEP = "dispatcher.tasks.sweep"


def _without_sweeps(record: logging.LogRecord) -> bool:
    data = record.__dict__.pop("data", None)
    return not (isinstance(data, dict) and data.get("name") == _SWEEP)


def formatter(log_format: Literal["json", "text"]) -> logging.Formatter:
    """The formatter for one of the two shapes."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    if log_format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain tracebacks: structlog's own show local variables, and so secrets.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def configure(*, log_format: Literal["json", "text"], level: str) -> None:
    """Send every logger of this process to standard error in one shape."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").addFilter(_without_sweeps)
