"""Error answers: RFC 9457 problem details, for every error.

A body never carries a token or a server URL: the Android SDK reads those without looking at the
status.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from flask import Blueprint, Response
from gunicorn.http.errors import ParseException
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from dispatcher.errors import LedgerUnavailable, Overloaded, UnreadableRecord

logger = logging.getLogger(__name__)
blueprint = Blueprint("problems", __name__)

MEDIA_TYPE = "application/problem+json"
# RFC 9110 has renamed the 422, which werkzeug does not know yet.
_TITLES: Final = {**HTTP_STATUS_CODES, 422: "Unprocessable Content"}
RETRY_AFTER_S = 1
# The mistakes of one request that an answer names.
MAX_MISTAKES: Final = 20
MAX_FIELD_CHARS: Final = 120


class Problem(Exception):
    """Stops a request with an error answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        errors: Sequence[dict[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.errors = errors

    def response(self) -> Response:
        """Make the answer, with HTTP's name of the status as its title."""
        body = problem_body(self.status, _TITLES[self.status], self.detail, self.errors)
        return Response(body, status=self.status, headers=self.headers, mimetype=MEDIA_TYPE)


def problem_body(
    status: int, title: str, detail: str, errors: Sequence[dict[str, str]] = ()
) -> bytes:
    """Encode `type`, `title`, `status`, `detail`, and `errors` where fields are wrong."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return json.dumps(body).encode()


def invalid_fields(error: ValidationError) -> Problem:
    """Make a 422 that names the first wrong fields, without repeating what was sent.

    Its size is bounded: names of attributes are the caller's own.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = [
        {"field": _field(item["loc"]), "message": item["msg"]} for item in found[:MAX_MISTAKES]
    ]
    names = ", ".join(sorted({item["field"] for item in errors}))
    if len(found) > MAX_MISTAKES:
        names += f"; these are the first {MAX_MISTAKES} of {len(found)} mistakes"
    return Problem(422, f"wrong fields: {names}", errors=errors)


def _field(loc: tuple[int | str, ...]) -> str:
    name = ".".join(str(part) for part in loc) or "(body)"
    return name if len(name) <= MAX_FIELD_CHARS else f"{name[:MAX_FIELD_CHARS]}..."


def unavailable(detail: str) -> Problem:
    """Make a 503 with `Retry-After`."""
    return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_S)})


def too_many(detail: str, *, retry_after_s: int) -> Problem:
    """Make a 429 with `Retry-After`."""
    return Problem(429, detail, headers={"Retry-After": str(retry_after_s)})


blueprint.app_errorhandler(Problem)(Problem.response)


@blueprint.app_errorhandler(LedgerUnavailable)
def _ledger_unavailable(error: LedgerUnavailable) -> Response:
    logger.error("no ledger", extra={"error": str(error)})
    return unavailable(
        "the dispatch ledger does not answer; nothing was promised, try again in a second"
    ).response()


@blueprint.app_errorhandler(UnreadableRecord)
def _unreadable(error: UnreadableRecord) -> Response:
    logger.error("a record cannot be read", extra={"error": str(error)})
    return Problem(
        410,
        "the record of this dispatch is damaged, or of another release of Usher, so nobody works "
        "on it: ask for a new session; its operator finds it in GET /readyz (parked)",
    ).response()


@blueprint.app_errorhandler(Overloaded)
def _overloaded(error: Overloaded) -> Response:
    return unavailable(f"{error}; try again in a second").response()


@blueprint.app_errorhandler(ParseException)
def _misframed(error: ParseException) -> Response:
    """Answer a body with malformed chunks, which gunicorn meets when the body is read."""
    logger.info("not an HTTP request", extra={"error": type(error).__name__})
    return Problem(400, "the body is not framed as HTTP/1.1 says").response()


@blueprint.app_errorhandler(HTTPException)
def _http(error: HTTPException) -> Response:
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return Problem(error.code or 500, error.description or error.name, headers=headers).response()


@blueprint.app_errorhandler(Exception)
def _unexpected(error: Exception) -> Response:
    logger.exception("unexpected error")
    return Problem(500, "a fault of ours; it has been logged").response()
