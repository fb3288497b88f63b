"""gunicorn's logger class (`logger_class`), for logs in the format of the other processes.

gunicorn's own has a format and handlers of its own, and repeats what callers send.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger


class GunicornLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, with the root logger's handler in place of its own."""

    def setup(self, cfg: Any) -> None:
        """Set the levels; the root logger has the handler (`dispatcher/observability/logs.py`)."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning; one about an invalid request without its text, which may hold a key."""
        if msg.startswith("Invalid request from"):
            self.error_log.info("not an HTTP request", extra={"error": _error_type()})
        else:
            super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an error; a caller that timed out while reading or writing is no error of ours."""
        if isinstance(sys.exception(), TimeoutError):
            self.error_log.info("gave up on a caller", extra={"error": _error_type()})
        else:
            super().exception(msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> None:
        """Log a request, where `accesslog` is set; without its query, which may hold a secret."""
        if self.access_log_enabled:
            self.access_log.info(
                "request",
                extra={
                    "method": environ["REQUEST_METHOD"],
                    "path": environ["PATH_INFO"],
                    "status": int(str(resp.status)[:3]),
                    "took_ms": round(request_time.total_seconds() * 1000, 1),
                },
            )


def _error_type() -> str:
    return type(sys.exception()).__name__
