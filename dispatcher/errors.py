"""Usher's exceptions, under one root: `UsherError`.

Whether a LiveKit failure is transient or permanent is its type, never its text. Every message says
what happened and, where a person can act, what to do.
"""

from __future__ import annotations


class UsherError(Exception):
    """The root of every error that Usher raises on purpose."""


class ConfigurationError(UsherError):
    """A setting is missing or wrong; the message names the environment variable."""


class LedgerUnavailable(UsherError):
    """Redis did not answer in time; nothing is known to have been written.

    `refusal` is Redis's error answer, with the remedy; empty when Redis gave no answer.
    """

    def __init__(self, message: str = "", *, refusal: str = "") -> None:
        super().__init__(message)
        self.refusal = refusal


class StepFailed(LedgerUnavailable):
    """Redis works and answers this step with an error: the step or its keys are wrong."""


class TooLate(LedgerUnavailable):
    """Redis ran the step after its caller's time-out; nothing was written."""

    def __init__(self) -> None:
        super().__init__("Redis came to it too late; nothing was written")


class Overloaded(UsherError):
    """The backlog is full: more sessions would not get their agents in time."""


class LimitReached(UsherError):
    """A client has reached one of its limits; nothing was written.

    `spent`: it has used up its requests, so that any other of its requests is refused until then.
    """

    def __init__(self, message: str, *, retry_after_s: float, spent: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.spent = spent


class UnknownDispatch(UsherError):
    """No record has this dispatch id (never existed, or its retention time is over)."""


class UnreadableRecord(UsherError, ValueError):
    """A record is damaged, or was written by a release that this one does not know.

    `client_id` is the record's client, as far as that can be read.
    """

    def __init__(self, message: str, *, client_id: str = "") -> None:
        super().__init__(message)
        self.client_id = client_id


class RedispatchRefused(UsherError):
    """A redispatch would do harm, or nothing; the message says which."""


class DispatchFailed(UsherError):
    """A dispatch ended as `failed`; the message starts with the failure reason."""


class Postponed(UsherError):
    """The client has reached its limit of running tasks; the end of one wakes the dispatch."""


class LiveKitError(UsherError):
    """A call to LiveKit failed."""


class PermanentLiveKitError(LiveKitError):
    """LiveKit refused for good (400, 401, 403, 404...): another try would give the same answer."""


class TransientLiveKitError(LiveKitError):
    """A call failed that may succeed next time: connection, time-out, 5xx, 429.

    `outcome_unknown` is true when LiveKit may have carried out the request although no answer came.
    The caller must then look before it repeats it: `CreateDispatch` is not idempotent.
    """

    def __init__(self, message: str, *, outcome_unknown: bool) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class LiveKitAway(TransientLiveKitError):
    """This LiveKit server's circuit breaker is open, so no request was sent.

    Worth another try later, and not while a caller waits.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, outcome_unknown=False)
