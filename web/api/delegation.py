"""Delegate a session to LiveKit while Redis is away.

LiveKit dispatches the agent that the participant's token names, when the participant joins. The
holder can read it, so the agent's metadata is in it only where the client wants that, or where the
holder has sent it (`docs/decisions/0120-metadata-in-tokens.md`).
"""

from __future__ import annotations

from livekit.api import RoomConfiguration

from dispatcher.clients.models import Client
from dispatcher.domain.models import NewDispatch
from dispatcher.errors import LedgerUnavailable
from web.contract.participant_tokens import delegated_agents
from web.contract.problems import unavailable
from web.state.accepted_dispatches import Promises


def delegate(
    promises: Promises,
    client: Client,
    new: NewDispatch,
    *,
    public: bool,
    because: LedgerUnavailable,
) -> tuple[NewDispatch, RoomConfiguration | None]:
    """Accept `new`, or return what was accepted for its room; and the agents for the token, if any.

    With a publishable key (`public`) the holder of the token has sent the metadata.

    Raises:
        Problem: 503, the token would show the agent's metadata.
        LedgerUnavailable: the client delegates nothing, or no more can be remembered.
    """
    if not client.delegates:
        raise LedgerUnavailable(f"this client delegates nothing; {because}") from because
    if new.agent_metadata and not (public or client.delegates_metadata):
        raise unavailable(
            "the dispatch ledger does not answer, and without it the participant's token would "
            "show the agent's metadata to its holder; nothing was promised: try again in a second, "
            "or without metadata, or set delegates_metadata for this client"
        )
    promise = promises.delegate(new, because=str(because))
    promised = promise.new
    # The caller that asked for this room first may have sent other metadata; its token has that.
    known = ("", new.agent_metadata if public else "")
    shown = client.delegates_metadata or promised.agent_metadata in known
    agents = delegated_agents(promised, requested_at_ms=promise.requested_at_ms)
    return promised, agents if shown else None
