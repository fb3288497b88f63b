"""gunicorn's worker class, and gevent's monkey patch where the class needs it.

Imported before all other modules: one that was imported earlier would keep the unpatched functions.
"""

from __future__ import annotations

from typing import Final

# A greenlet for each connection: an event stream or a slow caller costs some 50 kB, and no thread.
# "gthread" works as well (docs/decisions/0129-web-on-a-stock-server.md).
GREENLETS: Final = "web.server.gunicorn_worker.Worker"
WORKER_CLASS: str = GREENLETS

if WORKER_CLASS == GREENLETS:
    from gevent import monkey

    # gunicorn's worker patches once more, without effect.
    monkey.patch_all()
