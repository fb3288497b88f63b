"""Usher's exceptions, under one root: `UsherError`.

Whether a LiveKit failure is transient or permanent is its type, never its text. Every message says
what happened and, where a person can act, what to do.
"""

from __future__ import annotations


class UsherError(Exception):
    """Root of every error that Usher raises on purpose."""


class ConfigurationError(UsherError):
    """A setting is missing or wrong; the message names the environment variable."""


class LedgerUnavailable(UsherError):
    """Redis did not answer in time; nothing is known to have been written.

    `refusal` is what it says instead of working, with the remedy; empty when it says nothing.
    """

    def __init__(self, message: str = "", *, refusal: str = "") -> None:
        super().__init__(message)
        self.refusal = refusal


class StepFailed(LedgerUnavailable):
    """Redis works, and this very step it answers with an error: the step or its keys are wrong."""


class TooLate(LedgerUnavailable):
    """Redis has come to it after its caller was to be told that it failed; nothing was written."""

    def __init__(self) -> None:
        super().__init__("Redis came to it too late; nothing was written")


class Overloaded(UsherError):
    """More sessions are on their way than would get their agents in time."""


class LimitReached(UsherError):
    """A client has used up what it may ask for; nothing was written."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownDispatch(UsherError):
    """No record has this dispatch id (never existed, or its retention time is over)."""


class UnreadableRecord(UsherError, ValueError):
    """A record that is damaged, or of a release that this one does not know.

    `client_id` is whose it is, as far as that can be read.
    """

    def __init__(self, message: str, *, client_id: str = "") -> None:
        super().__init__(message)
        self.client_id = client_id


class RedispatchRefused(UsherError):
    """Dispatching again by hand would do harm or nothing; the message says which."""


class DispatchFailed(UsherError):
    """A dispatch ended as `failed`; the message starts with the failure reason."""


class Postponed(UsherError):
    """This client has enough tasks in hand; the dispatch is woken when one of them is done."""


class LiveKitError(UsherError):
    """LiveKit did not do what it was asked to."""


class PermanentLiveKitError(LiveKitError):
    """LiveKit refused for good (400, 401, 403, 404...): another try gives the same answer."""


class TransientLiveKitError(LiveKitError):
    """LiveKit may well do it next time: connection, time-out, 5xx, 429.

    `outcome_unknown` is true when the request may have been carried out although no answer came,
    so that the caller must look before it asks again: asking for an agent is not idempotent.
    """

    def __init__(self, message: str, *, outcome_unknown: bool) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class LiveKitAway(TransientLiveKitError):
    """This LiveKit server has not answered for a while, so it was not even asked.

    Worth another try later, and not while somebody waits.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, outcome_unknown=False)
