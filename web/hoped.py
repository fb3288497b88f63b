"""How is an answer made before it is known to be right?

A request for a session nearly always gets a new one. So its answer is made, with all its headers,
while Redis writes the record, and is sent when Redis has done so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Response, current_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Hoped(Response):
    """An answer that waits, when it is ready, for `settle` to find it right.

    Which returns None then, and else the answer that is sent instead; or it raises, as a view does.
    """

    def __init__(self, body: str, settle: Callable[[], Response | None], *, mimetype: str) -> None:
        super().__init__(body, mimetype=mimetype)
        self._settle = settle

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _, status, headers = self.get_wsgi_response(environ)
        write = start_response(status, headers)  # begins with the head; nothing is sent yet
        other = self._other()
        if other is not None:
            return current_app.process_response(other)(environ, start_response)
        # Sent at once: what Flask does at a request's end nobody need wait for.
        write(self.get_data())
        return ()

    def _other(self) -> Response | None:
        try:
            return self._settle()
        except Exception as error:
            return current_app.make_response(current_app.handle_user_exception(error))
