"""Does the benchmark read from LiveKit's log and Redis's MONITOR what happened?"""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

import pytest

from bench.livekit_log import LiveKitLog, LogEvent, Tail, parse
from bench.measure.calls import COMMAND, count_as
from dispatcher.ledger.scripts import script

ACTIVE = (
    "2026-11-23T00:05:57.793Z\tINFO\tlivekit\trtc/room.go:1272\tparticipant active\t"
    '{"room": "r", "participant": "%s", "remote": false, "room": "r"}'
)
CALL = (
    "2026-11-23T00:05:57.100Z\tINFO\tlivekit.api\tservice/twirp.go:149\t"
    'API RoomService.ListParticipants\t{"method": "ListParticipants", "room": "r", "status": "200"}'
)
ASSIGNED = (
    "2026-11-23T00:05:57.551Z\tINFO\tlivekit.agents\tservice/agentservice.go:412\t"
    'assigned job to worker\t{"jobID": "AJ_1", "room": "r", "workerID": "AW_1"}'
)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (ACTIVE % "agent-1", ("active", 1795392357793.0, "r", "agent-1")),
        (CALL, ("call", 1795392357100.0, "r", "ListParticipants")),
        (CALL.replace('"r"', '["r", "s"]'), ("call", 1795392357100.0, "", "ListParticipants")),
        (ASSIGNED, ("assigned", 1795392357551.0, "r", "AJ_1")),
    ],
)
def test_a_line_tells_what_happened_when_and_in_which_room(
    line: str, event: tuple[str, float, str, str]
) -> None:
    what, at_ms, room, name = event
    assert parse(line + "\n") == LogEvent(what=what, at_ms=at_ms, room=room, name=name)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "panic: something",
        ACTIVE.replace("participant active", "something else") % "agent-1",
        CALL[:-10],
        CALL.replace("2026-11-23T00:05:57.100Z", "yesterday"),
    ],
)
def test_other_lines_and_broken_ones_tell_nothing(line: str) -> None:
    assert parse(line) is None


def test_only_agents_count_and_each_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "livekit.log"
    path.write_text(ACTIVE % "agent-before" + "\n")
    log = LiveKitLog(path)
    later = (ACTIVE % "agent-1").replace("57.793", "58.000")
    with path.open("a") as file:
        file.write("\n".join([ACTIVE % "user-1", ACTIVE % "agent-1", later, CALL]) + "\n")
    log.look()
    log.close()
    assert log.agents == {"r": {"agent-1": 1795392357793.0}}
    assert log.first_active_ms("r") == 1795392357793.0
    assert log.first_active_ms("another") is None
    assert log.calls["r"] == {"ListParticipants": 1}


def test_a_tail_gives_whole_lines_and_goes_on_in_the_new_file_after_a_rotation(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    tail = Tail(path)
    assert tail.news() == ["old"]
    with path.open("a") as file:
        file.write("begun ")
        file.flush()
        assert tail.news() == []
        file.write("and ended\n")
        file.flush()
        path.rename(tmp_path / "log.1")
        path.write_text("new\n")
        assert tail.news() == ["begun and ended", "new"]
    tail.close()


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        (b'+1795392357.1 [0 127.0.0.1:40000] "LPUSH" "dispatch" "{}"', ("40000", "LPUSH")),
        (b'+1795392357.1 [0 lua] "hset" "usher:dispatch:x" "state"', ("lua", "HSET")),
        (b'+1795392357.1 [0 127.0.0.1:1] "EVALSHA" "0123456789abc"', ("1", "EVALSHA 01234567")),
        (b'+1795392357.1 [0 127.0.0.1:1] "PING"', ("1", "PING")),
    ],
)
def test_a_line_of_monitor_tells_a_process_from_a_script(
    line: bytes, counted: tuple[str, str]
) -> None:
    found = COMMAND.match(line)
    assert found is not None
    assert count_as(found) == counted


def test_a_script_of_ours_is_counted_by_its_name() -> None:
    digest = sha1(script("advance").encode(), usedforsecurity=False).hexdigest()
    found = COMMAND.match(b'+1.2 [0 127.0.0.1:1] "EVALSHA" "%s" "14"' % digest.encode())
    assert found is not None
    assert count_as(found) == ("1", "EVALSHA advance")
