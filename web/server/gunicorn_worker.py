"""Have a gevent worker end gracefully, with or without its master, as gunicorn's threaded one does.

What it does for connections and requests is gunicorn's.
"""

from __future__ import annotations

import os
from typing import Any

from gevent import GreenletExit
from gunicorn.workers.ggevent import GeventWorker


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker (27), but for its end."""

    alive: bool
    ppid: int

    def notify(self) -> None:
        """Tell the master that this worker is alive, once a second; without one, stop.

        gunicorn's raises SystemExit: what is being answered is dropped, and the socket stays open
        while the process writes what it has promised without Redis
        (`web/state/accepted_dispatches.py`), so that no other master can listen there.
        """
        if self.ppid != os.getppid():
            self.log.info("the master has gone, shutting down: %s", self)
            self.alive = False
            self.ppid = os.getppid()
        super().notify()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer and log an error; that a stop closes an idle connection is none.

        gunicorn's sends a 500 there, which a caller takes for the answer to its next request.
        """
        if not isinstance(exc, GreenletExit):
            super().handle_error(req, client, addr, exc)
