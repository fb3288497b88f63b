"""Choose gunicorn's worker class, and have Python wait as that one does.

Imported before anything else is: what has taken a function of Python's by then would keep it.
"""

from __future__ import annotations

from typing import Final

# A greenlet for each connection: an event stream or a slow caller costs some 50 kB, and no thread.
# "gthread" works as well (docs/decisions/0129-web-on-a-stock-server.md).
GREENLETS: Final = "web.server.gunicorn_worker.Worker"
WORKER_CLASS: str = GREENLETS

if WORKER_CLASS == GREENLETS:
    from gevent import monkey

    # gunicorn's worker does the same once more, without effect.
    monkey.patch_all()
