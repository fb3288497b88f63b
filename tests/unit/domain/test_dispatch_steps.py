"""What does one try of asking LiveKit do next, of what it has seen?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain.dispatch_steps import (
    Ask,
    Asked,
    GiveUp,
    Look,
    Seen,
    Step,
    TakeBack,
    next_step,
)
from dispatcher.domain.models import TERMINAL, Dispatch, State
from dispatcher.domain.rooms import RoomDispatch
from tests.support.values import UNREACHABLE, a_dispatch, a_server


def dispatch(**changes: Any) -> Dispatch:
    return a_dispatch(**({"state": State.DISPATCHING} | changes))


def seen(**changes: Any) -> Seen:
    """What a first try has seen: nothing yet."""
    return Seen(**({"fenced": True, "try_number": 1, "maybe_asked": False} | changes))


def again(**changes: Any) -> Seen:
    """A second try, which has read the record."""
    return seen(**({"try_number": 2, "record": dispatch()} | changes))


def listed(generation: int | None, dispatch_id: str = "dsp_1") -> RoomDispatch:
    name = f"AD_{dispatch_id}_{generation}"
    return RoomDispatch(livekit_dispatch_id=name, dispatch_id=dispatch_id, generation=generation)


OURS, OLDER, NEWER = listed(2), listed(1), listed(3)
UNNUMBERED, ANOTHER = listed(None), listed(1, "dsp_2")


@pytest.mark.parametrize(
    ("of", "already", "follows"),
    [
        (dispatch(), seen(), Ask.BY_ROOM),
        (dispatch(), seen(room_made=True), Look.DISPATCHES),  # a room that was there asks nobody
        (dispatch(), seen(room_made=True, dispatches=[]), Ask.BY_DISPATCH),
        (dispatch(), seen(room_made=True, dispatches=[listed(1)]), Asked),
        # LiveKit may have this dispatch already: looked for, and not in a room made for it.
        (dispatch(), seen(maybe_asked=True), Look.DISPATCHES),
        (dispatch(generation=2), seen(), Look.DISPATCHES),
        (dispatch(state=State.DELEGATED), seen(), Look.DISPATCHES),
        (dispatch(), seen(maybe_asked=True, dispatches=[]), Ask.BY_DISPATCH),
        (dispatch(generation=2), seen(dispatches=[]), Ask.BY_DISPATCH),
        (dispatch(state=State.DELEGATED), seen(dispatches=[]), Ask.BY_DISPATCH),
    ],
)
def test_livekit_is_asked_once(of: Dispatch, already: Seen, follows: Step | type[Step]) -> None:
    step = next_step(of, already)

    assert step is follows or type(step) is follows


def test_what_is_listed_of_an_older_generation_is_taken_back_and_nothing_else() -> None:
    of = dispatch(generation=2)
    found = seen(dispatches=[OLDER, ANOTHER, NEWER, UNNUMBERED])

    assert next_step(of, found) == TakeBack(
        livekit_dispatch_ids=(OLDER.livekit_dispatch_id, UNNUMBERED.livekit_dispatch_id)
    )
    assert next_step(of, replace(found, taken_back=True)) is Ask.BY_DISPATCH


def test_what_is_listed_of_this_generation_is_the_answer_once_the_older_are_gone() -> None:
    of = dispatch(generation=2)
    found = seen(dispatches=[OURS, OLDER])

    assert isinstance(next_step(of, found), TakeBack)
    assert next_step(of, replace(found, taken_back=True)) == Asked(
        livekit_dispatch_id=OURS.livekit_dispatch_id
    )


def test_a_worker_that_was_frozen_takes_the_next_generation_for_its_own_no_more() -> None:
    assert next_step(dispatch(), seen(maybe_asked=True, dispatches=[OURS])) is Ask.BY_DISPATCH


@pytest.mark.parametrize(
    ("record", "follows"),
    [
        (None, Look.RECORD),
        (dispatch(), Ask.BY_ROOM),
        (dispatch(generation=2), GiveUp.OVERTAKEN),
        *((dispatch(state=state), GiveUp.OVERTAKEN) for state in sorted(TERMINAL)),
    ],
)
def test_another_try_asks_only_for_what_is_still_wanted(
    record: Dispatch | None, follows: Step
) -> None:
    assert next_step(dispatch(), again(record=record, agent_servers=[a_server()])) is follows


@pytest.mark.parametrize(
    ("of", "already"), [(dispatch(), again()), (dispatch(**UNREACHABLE), seen())]
)
def test_where_livekit_was_away_it_is_not_asked_before_an_agent_server_is_back(
    of: Dispatch, already: Seen
) -> None:
    def after(*servers: Any) -> Step:
        return next_step(of, replace(already, agent_servers=servers))

    assert next_step(of, already) is Look.AGENT_SERVERS
    assert after() is GiveUp.NO_AGENT_SERVER
    assert after(a_server(registered=False)) is GiveUp.NO_AGENT_SERVER
    assert after(a_server(used_slots=4)) is Ask.BY_ROOM  # full is there
    # Its servers report nothing: there is none to look for.
    assert next_step(of, replace(already, fenced=False)) is Ask.BY_ROOM


def test_what_livekit_has_already_needs_no_agent_server() -> None:
    found = again(maybe_asked=True, dispatches=[listed(1)])

    assert isinstance(next_step(dispatch(), found), Asked)
    assert next_step(dispatch(), replace(found, dispatches=[])) is Look.AGENT_SERVERS
