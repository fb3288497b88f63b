"""What load does an agent server report to LiveKit?"""

from __future__ import annotations

import itertools

import pytest

from worker_agent.reporting import LIVEKIT_TARGET_LOAD, livekit_load


@pytest.mark.parametrize("slots", [1, 2, 7, 40, 1000])
def test_the_load_stays_below_livekits_target_up_to_the_last_slot_and_beyond(slots: int) -> None:
    for used_slots in range(slots + 2):
        assert 0 <= livekit_load(used_slots=used_slots, slots=slots) < LIVEKIT_TARGET_LOAD


@pytest.mark.parametrize("slots", [1, 2, 7, 40, 1000])
def test_the_load_rises_with_every_used_slot(slots: int) -> None:
    loads = [livekit_load(used_slots=used, slots=slots) for used in range(slots + 1)]

    assert all(lower < higher for lower, higher in itertools.pairwise(loads))


def test_an_idle_agent_server_reports_no_load() -> None:
    assert livekit_load(used_slots=0, slots=40) == 0


def test_the_target_load_is_the_one_that_livekit_ships_with() -> None:
    assert LIVEKIT_TARGET_LOAD == 0.7


def test_of_two_agent_servers_the_relatively_emptier_one_reports_less() -> None:
    assert livekit_load(used_slots=10, slots=40) < livekit_load(used_slots=1, slots=2)
