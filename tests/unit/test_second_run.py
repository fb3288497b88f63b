"""Which failed tests does CI run once more?"""

from __future__ import annotations

from pathlib import Path

from tests.second_run import AT_MOST, last_failed, why_not


def test_a_few_failed_tests_are_run_again() -> None:
    assert why_not([f"tests/acceptance/test_x.py::test_{n}" for n in range(AT_MOST)]) == ""


def test_many_failed_tests_are_not() -> None:
    many = [f"tests/acceptance/test_x.py::test_{n}" for n in range(AT_MOST + 1)]

    assert "4 tests have failed" in why_not(many)


def test_a_broken_promise_is_not_looked_at_again() -> None:
    assert "promise" in why_not(["tests/faults/test_campaign.py::test_short"])
    assert "promise" in why_not(["tests/several/test_hosts_die.py::test_half"])


def test_a_file_that_cannot_be_collected_is_not_a_disturbed_test() -> None:
    assert "collected" in why_not(["tests/unit/test_x.py"])


def test_a_failure_outside_of_the_tests_stays_one() -> None:
    assert "something else" in why_not([])


def test_pytests_own_list_is_read(tmp_path: Path) -> None:
    listed = tmp_path / "lastfailed"
    assert last_failed(listed) == []

    listed.write_text('{"tests/b.py::test_b[x]": true, "tests/a.py::test_a": true}')

    assert last_failed(listed) == ["tests/a.py::test_a", "tests/b.py::test_b[x]"]
