"""Which of LiveKit's dispatches in a room are this dispatch's?"""

from __future__ import annotations

from dispatcher.domain.rooms import RoomDispatch, sent_before, sent_now
from tests.support.values import a_dispatch


def listed(generation: int | None, dispatch_id: str = "dsp_1") -> RoomDispatch:
    name = f"AD_{dispatch_id}_{generation}"
    return RoomDispatch(livekit_dispatch_id=name, dispatch_id=dispatch_id, generation=generation)


OURS, OLDER, NEWER = listed(2), listed(1), listed(3)
UNNUMBERED, ANOTHER = listed(None), listed(2, "dsp_2")


def test_what_is_listed_of_older_generations_is_taken_back_and_nothing_else() -> None:
    found = [OURS, OLDER, ANOTHER, NEWER, UNNUMBERED]

    assert sent_before(a_dispatch(generation=2), found) == [
        OLDER.livekit_dispatch_id,
        UNNUMBERED.livekit_dispatch_id,
    ]


def test_only_what_is_listed_of_this_generation_is_its_own() -> None:
    assert sent_now(a_dispatch(generation=2), [OURS, OLDER, NEWER]) == OURS.livekit_dispatch_id
    # A worker that was frozen does not take the next generation for its own.
    assert sent_now(a_dispatch(generation=2), [OLDER, NEWER, ANOTHER, UNNUMBERED]) is None
