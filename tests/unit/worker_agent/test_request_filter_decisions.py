"""Does an agent server take a job, and why, or why not? The pure part of the request filter."""

from __future__ import annotations

from typing import Any

import pytest
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from dispatcher.domain.models import State
from dispatcher.ledger.dispatches import Advanced
from worker_agent.decisions import (
    AgentServerIdentity,
    Decision,
    Offer,
    Reason,
    decide,
    decide_claim,
    read_offer,
)

ATTRIBUTES = {
    "usher.dispatch_id": "dsp_1",
    "usher.generation": "3",
    "usher.client_id": "acme",
    "usher.container": "box-1",
    "usher.request_type": "redispatch",
}
SERVER = AgentServerIdentity(
    agent_server_id="server-1", agent_name="agent", container="box-1", client_id="", slots=2
)
ACMES = AgentServerIdentity(
    agent_server_id="server-2", agent_name="agent", container="box-1", client_id="acme", slots=2
)


def offer_with(attributes: dict[str, str]) -> Offer:
    room = Room(name="room-1", num_participants=2)
    return read_offer(Job(id="AJ_1", room=room, agent_name="agent", attributes=attributes))


def ours(**changes: Any) -> Offer:
    return offer_with(ATTRIBUTES | {f"usher.{name}": value for name, value in changes.items()})


def claim(outcome: str, job_id: str = "", state: State = State.ACCEPTED) -> Advanced:
    return Advanced(outcome=outcome, state=state, generation=3, job_id=job_id)


def test_an_offer_of_ours_is_read_with_all_that_it_carries() -> None:
    assert ours() == Offer(
        job_id="AJ_1",
        room_name="room-1",
        agent_name="agent",
        participant_count=2,
        request_type="redispatch",
        dispatch_id="dsp_1",
        generation=3,
        client_id="acme",
        container="box-1",
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"usher.dispatch_id": "", "usher.generation": "1"},
        {"usher.dispatch_id": "dsp_1"},
        *(
            ATTRIBUTES | {"usher.generation": garbage}
            for garbage in ("", "x", "-1", "1.0", " 1", "1e3", "²")
        ),
    ],
)
def test_an_offer_without_a_readable_dispatch_is_foreign(attributes: dict[str, str]) -> None:
    assert offer_with(attributes) == Offer(
        job_id="AJ_1",
        room_name="room-1",
        agent_name="agent",
        participant_count=2,
        request_type="foreign",
    )


def test_an_offer_without_a_request_type_is_a_dispatch() -> None:
    attributes = {name: value for name, value in ATTRIBUTES.items() if "request_type" not in name}

    assert offer_with(attributes).request_type == "dispatch"


def test_an_offer_of_ours_needs_the_claim() -> None:
    assert decide(ours(), SERVER, used_slots=0) == Decision(accept=True, reason=Reason.CLAIMED)


@pytest.mark.parametrize("container", ["", "box-1"])
def test_a_server_takes_jobs_for_its_container_and_for_any(container: str) -> None:
    assert decide(ours(container=container), SERVER, used_slots=0).accept


def test_a_server_for_one_client_takes_that_clients_jobs() -> None:
    assert decide(ours(), ACMES, used_slots=0).reason is Reason.CLAIMED


def test_a_foreign_job_is_accepted_without_a_claim() -> None:
    decision = decide(offer_with({}), ACMES, used_slots=0)

    assert decision == Decision(accept=True, reason=Reason.NOT_OURS)


@pytest.mark.parametrize(
    ("offer", "server", "used_slots", "reason"),
    [
        (ours(), SERVER, 2, Reason.FULL),
        (ours(), SERVER, 3, Reason.FULL),
        (offer_with({}), SERVER, 2, Reason.FULL),
        (ours(client_id="globex"), ACMES, 0, Reason.WRONG_CLIENT),
        (ours(client_id=""), ACMES, 0, Reason.WRONG_CLIENT),
        (ours(container="box-2"), SERVER, 0, Reason.WRONG_CONTAINER),
    ],
)
def test_what_is_true_of_this_server_only_lets_livekit_ask_the_next_one(
    offer: Offer, server: AgentServerIdentity, used_slots: int, reason: Reason
) -> None:
    decision = decide(offer, server, used_slots=used_slots)

    assert decision == Decision(accept=False, reason=reason, terminate=False)


def test_the_last_slot_is_given_away() -> None:
    assert decide(ours(), SERVER, used_slots=1).accept


def test_a_granted_claim_is_accepted() -> None:
    assert decide_claim(ours(), claim("moved")) == Decision(accept=True, reason=Reason.CLAIMED)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.JOINED])
def test_the_same_job_again_is_accepted_again(state: State) -> None:
    decision = decide_claim(ours(), claim("refused", job_id="AJ_1", state=state))

    assert decision == Decision(accept=True, reason=Reason.CLAIMED)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.ENDED])
def test_the_same_job_again_is_refused_when_its_dispatch_is_over(state: State) -> None:
    decision = decide_claim(ours(), claim("refused", job_id="AJ_1", state=state))

    assert decision == Decision(accept=False, reason=Reason.NOT_WANTED, terminate=True)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (claim("unknown"), Reason.UNKNOWN),
        (claim("stale"), Reason.STALE),
        (claim("stale", job_id="AJ_1"), Reason.STALE),
        (claim("refused", job_id="AJ_2"), Reason.SECOND_JOB),
        (claim("refused", state=State.CANCELLED), Reason.NOT_WANTED),
        (claim("refused", state=State.QUEUED), Reason.NOT_WANTED),
    ],
)
def test_what_is_true_of_the_dispatch_ends_the_job_everywhere(
    answer: Advanced, reason: Reason
) -> None:
    decision = decide_claim(ours(), answer)

    assert decision == Decision(accept=False, reason=reason, terminate=True)
