"""Does an interrupted benchmark go on where it stopped, and has nobody a better place in it?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.contenders import CONTENDERS
from bench.measure import MEASURES
from bench.size import FULL, QUICK, Size
from bench.units import Journal, Unit, rotated


def _unit(size: Size = QUICK) -> Unit:
    unit: Unit = MEASURES["join"].units(size)[0]
    return unit


def test_what_has_been_measured_is_kept_and_known_again(tmp_path: Path) -> None:
    unit = _unit()
    Journal(tmp_path, "join", {"n": 1}).add(unit, {"sessions": [1]})
    assert Journal(tmp_path, "join", {"n": 1}).results == {unit.key: {"sessions": [1]}}


def test_a_run_of_another_size_begins_anew(tmp_path: Path) -> None:
    Journal(tmp_path, "join", {"n": 1}).add(_unit(), {})
    assert Journal(tmp_path, "join", {"n": 2}).results == {}
    assert Journal(tmp_path, "join", {"n": 1}).results == {}


def test_a_line_that_a_killed_run_has_left_half_written_is_measured_again(tmp_path: Path) -> None:
    unit = _unit()
    Journal(tmp_path, "join", {}).add(unit, {"a": 1})
    with (tmp_path / "join.jsonl").open("a") as file:
        file.write('{"key": "0/usher", "resu')
    again = Journal(tmp_path, "join", {})
    assert again.results == {unit.key: {"a": 1}}


def test_each_round_begins_with_another_contender() -> None:
    names = list(CONTENDERS)
    rounds = [rotated(names, number) for number in range(len(names))]
    assert [one[0] for one in rounds] == names
    assert all(Counter(one) == Counter(names) for one in rounds)


@pytest.mark.parametrize("size", [FULL, QUICK])
@pytest.mark.parametrize("name", MEASURES)
def test_every_unit_has_a_key_of_its_own_and_takes_time(name: str, size: Size) -> None:
    units = MEASURES[name].units(size)
    assert len({unit.key for unit in units}) == len(units) > 0
    assert all(unit.measure == name and unit.takes_s > 0 for unit in units)
    assert {unit.contender for unit in units} <= set(CONTENDERS)
