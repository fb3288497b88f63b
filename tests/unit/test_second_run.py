"""Which failed tests does CI run once more?"""

from __future__ import annotations

from pathlib import Path

from tests.second_run import AT_MOST, last_failed, times, why_not


def test_a_few_failed_tests_are_run_again() -> None:
    assert why_not([f"tests/acceptance/test_x.py::test_{n}" for n in range(AT_MOST)]) == ""


def test_many_failed_tests_are_not() -> None:
    many = [f"tests/acceptance/test_x.py::test_{n}" for n in range(AT_MOST + 1)]

    assert "4 tests have failed" in why_not(many)


def test_one_about_a_promise_has_to_pass_three_times() -> None:
    assert times(["tests/acceptance/test_x.py::test_1"]) == 1
    assert times(["tests/faults/test_campaign.py::test_short"]) == 3
    assert times(["tests/acceptance/test_x.py::test_1", "tests/several/test_hosts.py::test"]) == 3


def test_a_file_that_cannot_be_collected_is_not_a_disturbed_test() -> None:
    assert "collected" in why_not(["tests/unit/test_x.py"])


def test_a_failure_outside_of_the_tests_stays_one() -> None:
    assert "something else" in why_not([])


def test_pytests_own_list_is_read(tmp_path: Path) -> None:
    listed = tmp_path / "lastfailed"
    assert last_failed(listed) == []

    listed.write_text('{"tests/b.py::test_b[x]": true, "tests/a.py::test_a": true}')

    assert last_failed(listed) == ["tests/a.py::test_a", "tests/b.py::test_b[x]"]
