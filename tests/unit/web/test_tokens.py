"""What may the holder of a participant token do? Join one room, and nothing else."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
from livekit import api
from livekit.api import RoomConfiguration

from dispatcher.clients.models import LiveKitCredentials
from dispatcher.domain.models import NewDispatch
from web.contract.participant_tokens import delegated_agents, participant_token, unguessable
from web.contract.request_schemas import TokenRequest

CREDENTIALS = LiveKitCredentials(
    url="ws://livekit", api_key="a-key", api_secret="a-secret-of-at-least-32-characters"
)


def claims(agents: RoomConfiguration | None = None, **request: Any) -> dict[str, Any]:
    """What the token for a request says, its signature checked."""
    token = participant_token(
        CREDENTIALS,
        TokenRequest.model_validate(request),
        dispatch_id="dsp_1",
        room_name="room-1",
        identity="ann",
        agents=agents,
    )
    return decoded(token)


def decoded(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(
        token, CREDENTIALS.api_secret, algorithms=["HS256"], options={"require": ["exp", "nbf"]}
    )
    return found


@pytest.mark.parametrize("delegated", [False, True])
def test_the_token_is_the_one_that_livekits_own_sdk_makes(delegated: bool) -> None:
    promised = NewDispatch(
        dispatch_id="dsp_1",
        client_id="c",
        room_name="room-1",
        agent_name="a",
        container="",
        agent_metadata="m",
        deadline_ms=1,
    )
    agents = delegated_agents(promised, requested_at_ms=1) if delegated else None
    wanted = {
        "participant_name": "Ann",
        "participant_metadata": "some",
        "participant_attributes": {"floor": "3"},
    }
    theirs = (
        api.AccessToken(CREDENTIALS.api_key, CREDENTIALS.api_secret)
        .with_identity("ann")
        .with_ttl(timedelta(seconds=600))
        .with_grants(
            api.VideoGrants(
                room_join=True,
                room="room-1",
                can_publish=True,
                can_subscribe=True,
                can_publish_data=True,
            )
        )
        .with_attributes({"floor": "3", "usher.dispatch_id": "dsp_1"})
        .with_name("Ann")
        .with_metadata("some")
    )
    if agents is not None:
        theirs = theirs.with_room_config(agents)
    ours = claims(agents=agents, **wanted)
    sdks = decoded(theirs.to_jwt())
    for told in (ours, sdks):
        assert told.pop("exp") - told.pop("nbf") == 600
    assert ours == sdks


def test_the_token_says_exactly_who_may_join_which_room() -> None:
    told = claims()
    moments = {name: told.pop(name) for name in ("exp", "nbf")}

    assert told == {
        "iss": "a-key",
        "sub": "ann",
        "video": {
            "roomJoin": True,
            "room": "room-1",
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
        },
        "attributes": {"usher.dispatch_id": "dsp_1"},
    }
    assert moments["exp"] - moments["nbf"] == 600
    assert abs(moments["nbf"] - time.time()) < 60


@pytest.mark.parametrize(
    "request_",
    [
        {"room_config": {"agents": [{"agent_name": "agent", "metadata": "m"}]}},
        {"room_config": {"agents": [{"agent_name": "agent", "deployment": "staging"}]}},
        {"video": {"roomAdmin": True}, "ttl": 86_400},
    ],
)
def test_nothing_that_is_asked_for_brings_agents_or_rights(request_: dict[str, Any]) -> None:
    told, plain = claims(**request_), claims()

    for name in ("exp", "nbf"):
        del told[name], plain[name]
    assert told == plain


def test_the_participants_name_metadata_and_attributes_are_in_it() -> None:
    told = claims(
        participant_name="Änn", participant_metadata="🙂", participant_attributes={"mood": "fine"}
    )

    assert told["name"] == "Änn"
    assert told["metadata"] == "🙂"
    assert told["attributes"] == {"mood": "fine", "usher.dispatch_id": "dsp_1"}


def test_a_caller_cannot_claim_another_dispatch() -> None:
    told = claims(participant_attributes={"usher.dispatch_id": "dsp_of_somebody_else"})

    assert told["attributes"] == {"usher.dispatch_id": "dsp_1"}


def test_made_up_names_carry_128_random_bits() -> None:
    names = {unguessable("room-") for _ in range(100)}

    assert len(names) == 100
    assert all(name.startswith("room-") and len(name) == 5 + 22 for name in names)
