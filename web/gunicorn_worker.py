"""Have a gevent worker end gracefully when its master has died, as gunicorn's threaded one does."""

from __future__ import annotations

import os

from gunicorn.workers.ggevent import GeventWorker


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker, which is told of its master's death as of a SIGTERM.

    By itself (gunicorn 27, `GeventWorker.notify`) it raises SystemExit: what is being answered is
    dropped, and its socket stays open while the process writes what it has promised without Redis
    (`web/promises.py`), so that no other master can listen there.
    """

    def notify(self) -> None:
        """Tell the master that this worker is alive; called once a second."""
        if self.ppid != os.getppid():
            self.log.info("the master has gone, shutting down: %s", self)
            self.alive = False
            self.ppid = os.getppid()
        super().notify()
