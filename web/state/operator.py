"""The operator's credential."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from web.settings import WebSettings


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Operator:
    """The operator's credential; with an empty user none is set."""

    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def named(self) -> bool:
        """True when a credential has been set."""
        return bool(self.user)

    def is_right(self, user: str, password: str) -> bool:
        """Return true for the right credential, in the same time for any."""
        same_user = hmac.compare_digest(_digest(user), _digest(self.user))
        same_password = hmac.compare_digest(_digest(password), _digest(self.password))
        return self.named and same_user and same_password


def operator_of(settings: WebSettings) -> Operator:
    """Return the operator that the settings name."""
    user, _, password = settings.operator_auth.get_secret_value().partition(":")
    return Operator(user=user, password=password)
