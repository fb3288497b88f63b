"""When is the file touched that tells a probe that a process does its work?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dispatcher.observability.liveness import AliveFile, Pulse, watch
from tests.acceptance.session import wait_for

LONG_AGO_S = 1_000_000_000


def touched_again(path: Path) -> bool:
    """True when it is touched within a few of the watch's periods."""
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    try:
        wait_for("a touch", lambda: path.stat().st_mtime > LONG_AGO_S or None, within_s=1)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("quiet_s", "redis_answers", "touched"),
    [(600, True, True), (600, False, True), (0, True, False), (0, False, True)],
)
def test_only_a_loop_that_stands_still_with_a_redis_that_answers_is_not_alive(
    tmp_path: Path, quiet_s: float, redis_answers: bool, touched: bool
) -> None:
    path = tmp_path / "alive"
    path.touch()

    watch(AliveFile(str(path)), Pulse(quiet_s), lambda: redis_answers, period_s=0.02)

    assert touched_again(path) is touched


def test_a_look_at_redis_that_raises_is_not_the_last(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.touch()
    errors = [ValueError("nobody has thought of that")]

    def answers() -> bool:
        if errors:
            raise errors.pop()
        return False

    watch(AliveFile(str(path)), Pulse(0), answers, period_s=0.02)

    wait_for("the second look", lambda: not errors or None, within_s=5)
    assert touched_again(path)


def test_a_pulse_that_is_felt_again_is_not_quiet() -> None:
    pulse = Pulse(quiet_s=600)

    pulse.feel(sender=None, signal=None)

    assert not pulse.quiet
    assert Pulse(quiet_s=0).quiet


def test_no_path_is_no_file_and_a_wrong_one_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    AliveFile("").touch()
    wrong = AliveFile(str(tmp_path / "none" / "alive"))

    wrong.touch()
    wrong.touch()

    assert [record.message for record in caplog.records] == ["cannot touch USHER_ALIVE_FILE"]
