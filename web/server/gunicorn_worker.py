"""gunicorn's gevent worker with a graceful end, also without a master.

It is imported before all other modules, which would keep Python's unpatched functions. Why:
`docs/decisions/0129-web-on-a-stock-server.md`.
"""

from __future__ import annotations

import os
from typing import Any

from gevent import GreenletExit, monkey
from gunicorn.workers.ggevent import GeventWorker

monkey.patch_all()  # gunicorn's worker patches once more, without effect


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker (27) with another end."""

    ppid: int

    def notify(self) -> None:
        """Tell the master, once a second, that this worker is alive; stop when the master is gone.

        gunicorn's own raises SystemExit, which drops requests and keeps the socket open.
        """
        if self.ppid != os.getppid():
            self.log.info("the master has gone, shutting down: %s", self)
            self.alive = False
            self.ppid = os.getppid()
        super().notify()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer and log an error; an idle connection that a stop closes is none.

        gunicorn's own sends a 500 there, which a caller takes for the answer to its next request.
        """
        if not isinstance(exc, GreenletExit):
            super().handle_error(req, client, addr, exc)
