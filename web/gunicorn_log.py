"""How does gunicorn log? As everybody else does.

By itself it formats its lines its own way, in handlers of its own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger


class GunicornLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, whose lines go where all of this process's go."""

    def setup(self, cfg: Any) -> None:
        """Set the levels; the handler is the root logger's (`dispatcher/logs.py`)."""
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True

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
