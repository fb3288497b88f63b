"""Remove tokens, keys, passwords and agents' metadata from log records.

Libraries log such values with their errors (`docs/decisions/0111-secrets-out-of-logs.md`). So a
filter at each handler of the process cleans every record with its fields and its traceback, and the
logging code need not. A secret is known by its form (a JSON web token, an `Authorization`, a
password in a URL), by the name of its field, or because this process holds it (`hide`).
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, urlsplit

HIDDEN: Final = "[hidden]"

# Shorter secrets would hide parts of ordinary words.
_SHORTEST: Final = 8
# Each takes time linear in the text, because a record may have a megabyte of it.
_FORMS: Final = (
    # Anything that begins like a JSON web token, truncated or not: its payload has people's data.
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]+){0,2}"), HIDDEN),
    (re.compile(r"\b(Bearer|Basic)( +)[\w.~+/=-]{16,}", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(usk|upk|whsec)_[\w+/=-]{8,}"), rf"\1_{HIDDEN}"),
    (re.compile(r"(://[^\s:/@]{0,256}:)[^\s/]+(?=@)"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(access_token=)[^&\s\"']+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # As JSON, Python and protobuf print it.
    (
        re.compile(
            r"""(metadata["']?\s*[:=]\s*)("(?:\\.|[^"\\])+"|'(?:\\.|[^'\\])+')""", re.IGNORECASE
        ),
        rf'\1"{HIDDEN}"',
    ),
)
# A text of any of these forms has one of these in it, in lower case.
_SIGNS: Final = re.compile(r"eyj|bearer|basic|usk_|upk_|whsec_|://|access_token=|metadata")
_FIELDS: Final = re.compile(
    r"(metadata|secret|password|authorization|cookie|token|api_?key)$", re.IGNORECASE
)
_VARIABLES: Final = re.compile(r"(SECRET|PASSWORD|TOKEN|API_KEY|_AUTH)$")
# This names a key pair and opens nothing; every participant's token shows it.
_NO_SECRETS: Final = frozenset({"LIVEKIT_API_KEY"})
# The attributes that every record has; the others are its fields.
_STANDARD: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime"))

_PLAIN: Final = (bool, int, float)  # values that are no secret

_held: set[str] = set()
_holding: re.Pattern[str] | None = None


def hide(secrets: Iterable[str]) -> None:
    """Remove these values from all that this process logs from now on."""
    global _holding
    new = {secret for secret in secrets if len(secret) >= _SHORTEST} - _held
    if new:
        _held.update(new)
        longest_first = sorted(_held, key=len, reverse=True)
        _holding = re.compile("|".join(re.escape(secret) for secret in longest_first))


def hide_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Hide the environment's secrets, found by the variables' names and in URLs."""
    for name, value in environ.items():
        if _VARIABLES.search(name) and name not in _NO_SECRETS:
            user, _, password = value.partition(":")
            hide((value, password) if user and name.endswith("_AUTH") else (value,))
        elif "://" in value:
            try:
                password = urlsplit(value).password or ""
            except ValueError:
                continue
            hide((password, unquote(password)))


def redact(text: str) -> str:
    """Return `text` without its secrets."""
    if _holding is not None:
        text = _holding.sub(HIDDEN, text)
    if _SIGNS.search(text.lower()):  # so in few texts, and much quicker than looking for each form
        for form, instead in _FORMS:
            text = form.sub(instead, text)
    return text


@lru_cache(maxsize=1000)
def _holds_secrets(field: str) -> bool:
    """Return true for a field that is secret by its name."""
    return _FIELDS.search(field) is not None


def _clean(value: object, name: str = "") -> object:
    """Return a field's value as it may be logged; one without a secret is returned unchanged."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if name and _holds_secrets(name):
        return HIDDEN if value else value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _clean(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each) for each in value]
    try:
        texts = str(value), repr(value)  # a formatter may use either
    except Exception as error:
        return f"[cannot be printed: {type(error).__name__}]"
    for text in texts:
        if (hidden := redact(text)) != text:
            return hidden
    return value


class Redaction(logging.Filter):
    """A filter that cleans each record; on a handler it sees the records of every logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean `record` and return true: no record is dropped."""
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the message: logging would print all of them
            message = str(record.msg)
        record.msg, record.args = redact(message), None
        for name in vars(record).keys() - _STANDARD:
            vars(record)[name] = _clean(vars(record)[name], name)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        _clean_traceback(record)
        return True


def _clean_traceback(record: logging.LogRecord) -> None:
    if record.exc_text:
        record.exc_text = redact(record.exc_text)
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if (hidden := redact(text)) != text:
            # Formatters print `exc_text` if there is no exception, else they format the exception.
            record.exc_info, record.exc_text = None, hidden


_REDACTION: Final = Redaction()


def guard(*loggers: logging.Logger) -> None:
    """Add the filter to every handler of these loggers, and call `hide_environment`.

    For programs with handlers of their own. Handlers that are added later are not covered.
    """
    hide_environment()
    for each in loggers:
        for handler in each.handlers:
            handler.addFilter(_REDACTION)  # `addFilter` adds the same filter only once
