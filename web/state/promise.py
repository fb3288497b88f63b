"""The value object of an accepted dispatch."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.domain.models import NewDispatch, RememberedDispatch, State


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A dispatch that was answered with a 200; `made_at` is this process's monotonic clock."""

    new: NewDispatch
    made_at: float
    requested_at_ms: int
    delegated: bool

    @property
    def room_key(self) -> tuple[str, str, str]:
        return self.new.client_id, self.new.agent_name, self.new.room_name

    def remembered(self, now: float) -> RememberedDispatch:
        """Return what the ledger restores: a verification must look whether the agent came."""
        age_ms = int((now - self.made_at) * 1000)
        return RememberedDispatch(**vars(self.new), state=State.DELEGATED, age_ms=age_ms)
