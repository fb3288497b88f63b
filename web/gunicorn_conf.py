"""How does gunicorn serve the web application? Each setting with its reason."""

from __future__ import annotations

import os

# By the master and before it listens: whoever connects while a worker boots waits for it, and with
# the imports still to do that was up to 1.5 s after a kill of the master.
import web.app  # noqa: F401  imported for its imports

bind = f"{os.environ.get('USHER_WEB_HOST', '127.0.0.1')}:{os.environ.get('USHER_WEB_PORT', '8080')}"
# Threads: a request is a millisecond of Redis, and one that waits for a hung Redis must not hold up
# the others. Few of them: what is served at once ends at once, so with 16 the median of 20 requests
# at once was half as long again as with 4. Two processes, so that one that dies is not the whole
# door.
worker_class = "gthread"
workers = int(os.environ.get("USHER_WEB_WORKERS", "2"))
threads = int(os.environ.get("USHER_WEB_THREADS", "8"))
# Everything is imported before the fork (above); the connections open later, in each worker.
preload_app = False
# A request that takes longer than this is a hang; every time-out of ours is below a second.
timeout = 30
graceful_timeout = 5
# Longer than the idle time-out of usual load balancers (60 s): whoever closes first must not be us,
# or a request is sent into a connection that is just being closed (seen with aiohttp and 5 s).
keepalive = 75
accesslog = None
control_socket_disable = True
