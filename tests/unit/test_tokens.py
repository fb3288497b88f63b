"""What may the holder of a participant token do? Join one room, and nothing else."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from dispatcher.clients import LiveKitCredentials
from dispatcher.models import State
from web.schemas import Accepted, TokenRequest
from web.tokens import participant_token, unguessable

CREDENTIALS = LiveKitCredentials(
    url="ws://livekit", api_key="a-key", api_secret="a-secret-of-at-least-32-characters"
)


def claims(**request: Any) -> dict[str, Any]:
    """What the token for a request says, its signature checked."""
    token = participant_token(
        CREDENTIALS,
        TokenRequest.model_validate(request),
        Accepted(
            dispatch_id="dsp_1",
            state=State.QUEUED,
            room_name="room-1",
            agent_name="a",
            client_id="c",
        ),
        identity="ann",
    )
    decoded: dict[str, Any] = jwt.decode(
        token, CREDENTIALS.api_secret, algorithms=["HS256"], options={"require": ["exp", "nbf"]}
    )
    return decoded


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
        {"room_config": {"name": "preset", "max_participants": 3}},
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
