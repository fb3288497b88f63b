"""An application for `web/worker.py` alone: it says who has answered, and is slow when told to be.

`gunicorn --worker-class web.worker.PatientWorker tests.integration.web_worker_app:app`
"""

from __future__ import annotations

import threading
import time
from typing import Any

from flask import Flask, Response, request

from web.reply import after_answer

app = Flask(__name__)
_done: list[str] = []


def _fail() -> None:
    raise RuntimeError("after the answer")


@app.post("/api/v1/dispatches")
@app.get("/other")
def answer() -> dict[str, object]:
    """Wait as long as the request says, and leave that much work for afterwards."""
    time.sleep(float(request.headers.get("Wait", 0)))
    leave_s = float(request.headers.get("Leave", 0))
    if leave_s:
        after_answer(_fail)
        after_answer(lambda: time.sleep(leave_s))
        after_answer(lambda: _done.append("done"))
    here = threading.current_thread() is threading.main_thread()
    return {"by": "loop" if here else "thread", "done": list(_done)}


class _Written(Response):
    """An answer that is written; the application works on for a second, or fails."""

    def __call__(self, environ: Any, start_response: Any) -> Any:
        _, status, headers = self.get_wsgi_response(environ)
        start_response(status, headers)(self.get_data())
        if "HTTP_FAIL" in environ:
            raise RuntimeError("after it has written")
        time.sleep(1)
        return ()


@app.post("/written")
def write() -> Response:
    """Say something, and go on."""
    return _Written("written")
