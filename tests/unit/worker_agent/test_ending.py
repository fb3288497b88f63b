"""What the end of a job is: the program's own wish, its people's leaving, or a loss."""

from __future__ import annotations

from unittest.mock import AsyncMock

import pytest
from livekit import rtc

from dispatcher.domain.timing import STILL_TO_COME_S
from tests.support.values import run_python
from worker_agent.ending import (
    ASKED_SLACK_S,
    RETURNED_S,
    Cause,
    People,
    is_asked_for,
    of_disconnect,
    of_exception,
    of_shutdown,
)
from worker_agent.livekit_workarounds import room_options

OVER = {
    rtc.DisconnectReason.ROOM_DELETED: Cause.PROGRAM,
    rtc.DisconnectReason.CLIENT_INITIATED: Cause.PROGRAM,
    rtc.DisconnectReason.ROOM_CLOSED: Cause.PEOPLE_LEFT,
}


@pytest.mark.parametrize("name", rtc.DisconnectReason.keys())
def test_only_a_room_that_is_over_ends_a_session_every_other_disconnect_is_a_loss(
    name: str,
) -> None:
    reason = rtc.DisconnectReason.Value(name)

    ending = of_disconnect(reason)

    assert ending.cause is OVER.get(reason, Cause.LOST)
    if ending.cause is Cause.LOST:
        assert name in ending.reason


def test_a_shutdown_that_the_program_has_not_asked_for_is_a_loss() -> None:
    assert of_shutdown("done talking", asked_for=True).cause is Cause.PROGRAM
    assert of_shutdown("done talking", asked_for=True).reason == "done talking"
    assert of_shutdown("parent process shutdown", asked_for=False).cause is Cause.LOST


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("user requested", Cause.PROGRAM),
        ("done talking", Cause.PROGRAM),
        ("job crashed", Cause.LOST),
        ("parent process shutdown", Cause.LOST),
        ("room disconnected", Cause.LOST),
        ("", Cause.LOST),
    ],
)
def test_a_shutdown_callback_s_reason_says_who_has_asked_for_it(reason: str, cause: Cause) -> None:
    assert of_shutdown(reason, asked_for=is_asked_for(reason)).cause is cause


def test_an_exception_is_told_by_its_type_and_place_and_not_by_its_text() -> None:
    try:
        raise ValueError("customer 4711 owes 12 euros")
    except ValueError as error:
        ending = of_exception(error)

    assert ending.cause is Cause.LOST
    assert f"ValueError at {__name__}:" in ending.reason
    assert "4711" not in ending.reason


def test_the_place_of_an_exception_is_the_program_s_own_line_and_no_library_s() -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  protobuf's text is not what is tested
        rtc.DisconnectReason.Value("NO_SUCH_REASON")

    assert f" at {__name__}:" in of_exception(raised.value).reason


async def test_a_connection_that_fails_is_placed_at_the_program_s_line_and_not_at_our_own() -> None:
    room = rtc.Room()
    refused = AsyncMock(side_effect=rtc.ConnectError("nothing listens there"))
    room.connect = refused  # type: ignore[method-assign]  # raises in a library's line
    room_options.spare(room)
    with pytest.raises(rtc.ConnectError) as raised:
        await room.connect("ws://127.0.0.1:1", "token")

    reason = of_exception(raised.value).reason
    assert " at worker_agent." not in reason
    assert f" at {__name__}:" in reason


def test_a_program_that_was_started_by_its_name_is_named_by_its_file() -> None:
    program = "\n".join(
        [
            "from worker_agent.ending import of_exception",
            "try:",
            "    {}['key']",
            "except KeyError as error:",
            "    print(of_exception(error).reason)",
        ]
    )

    assert run_python(program).strip() == "the agent program raised KeyError at <string>:3"


@pytest.mark.parametrize(
    ("people", "returned"),
    [
        (People(present=1, left_ago_s=0.5, there_s=0.4), True),
        (People(present=0, left_ago_s=0.5), False),
        (People(present=1, left_ago_s=None, there_s=0.4), False),
        (People(present=1, left_ago_s=RETURNED_S, there_s=0.4), False),
        # One of two has left: the other one the program knows.
        (People(present=1, left_ago_s=0.5, there_s=60.0), False),
    ],
)
def test_people_have_returned_when_they_have_come_just_as_another_left(
    people: People, returned: bool
) -> None:
    assert people.have_returned is returned


@pytest.mark.parametrize(
    ("people", "within_s"),
    [
        (People(present=0, left_ago_s=2.0), 2.0 + ASKED_SLACK_S),
        (People(present=1, left_ago_s=2.0), None),
        (People(present=0), STILL_TO_COME_S),  # one who has asked again, and has not come yet
        (People(present=1), None),
    ],
)
def test_whether_a_caller_has_asked_since_matters_where_people_have_left(
    people: People, within_s: float | None
) -> None:
    assert people.asked_within_s == within_s
