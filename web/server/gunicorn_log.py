"""Have gunicorn log as the other processes do.

By itself it formats its lines its own way, in handlers of its own, and repeats what callers send.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger


class GunicornLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, whose lines go where all of this process's go."""

    def setup(self, cfg: Any) -> None:
        """Set the levels; the handler is the root logger's (`dispatcher/observability/logs.py`)."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Warn; of a request that is none, without what it says: there may be a key in it."""
        if msg.startswith("Invalid request from"):
            self.error_log.info("not an HTTP request", extra={"error": _kind_of_error()})
        else:
            super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log an error; a caller that does not read or write for too long is none of ours."""
        if isinstance(sys.exc_info()[1], TimeoutError):
            self.error_log.info("gave up on a caller", extra={"error": _kind_of_error()})
        else:
            super().exception(msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> None:
        """One request, where `accesslog` is set; without what a caller may have in its query."""
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


def _kind_of_error() -> str:
    error = sys.exc_info()[1]
    return "" if error is None else type(error).__name__
