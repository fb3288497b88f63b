"""What does a web process remember of what it has promised? On a Redis that dies and comes back."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, endings, keys, restoring
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.ownredis import OwnRedis
from tests.support.values import AGENT_NAME, PROJECT_ROOT, eventually, new_dispatch
from web.state import accepted_dispatches
from web.state.accepted_dispatches import Promises
from web.state.promise_files import Spool


@pytest.fixture
def store(own_common: CommonSettings) -> Iterator[Ledger]:
    opened = Ledger(own_common)
    yield opened
    opened._redis.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def kept(store: Ledger, spool: Spool) -> Iterator[Promises]:
    opened = Promises(store, retention_s=500, spool=spool)
    yield opened
    opened.close()


def read(store: Ledger, dispatch_id: str = "dsp_1") -> Dispatch | None:
    try:
        return store.run(dispatches.read(dispatch_id))
    except LedgerUnavailable:
        return None


def accept(store: Ledger, kept: Promises, **changes: Any) -> None:
    new = new_dispatch(**changes)
    store.run(dispatches.create(new, due_in_s=2, detail={}))
    kept.remember(new)


async def test_what_redis_has_lost_is_written_again_and_told_as_an_error(
    store: Ledger, kept: Promises, own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    accept(store, kept, agent_metadata="{}")

    own_redis.stop()
    own_redis.start()  # empty
    record = await eventually(lambda: read(store))

    assert record is not None
    assert (record.state, record.generation) == (State.DELEGATED, 1)
    assert record.agent_metadata == "{}"
    assert 0 < record.updated_at_ms - record.requested_at_ms < 10_000
    assert record.deadline_at_ms - record.updated_at_ms == 20_000
    # It is told after it is written.
    told = await eventually(lambda: [r for r in caplog.records if r.levelno == logging.ERROR])
    assert [vars(r)["dispatches"] for r in told] == [1]


async def test_what_was_promised_without_redis_is_written_when_it_is_back(
    store: Ledger, kept: Promises, own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.stop()
    kept.delegate(new_dispatch())
    own_redis.start()

    record = await eventually(lambda: read(store))

    assert record is not None
    assert record.state is State.DELEGATED
    kept.close()  # whatever there is to tell is told
    assert not [r for r in caplog.records if r.levelno == logging.ERROR]  # nothing was lost


async def test_one_that_cannot_be_written_keeps_no_other_from_being_written(
    store: Ledger, kept: Promises, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    kept.delegate(new_dispatch("dsp_1", room_name="broken"))
    kept.delegate(new_dispatch("dsp_2"))
    kept.close()  # it looks a last time, in vain; from now on only the test looks
    own_redis.start()
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as raw:
        live = keys.live("acme", AGENT_NAME, "broken")
        raw.rpush(live, "not the id of a dispatch")

        kept.look()

        assert read(store, "dsp_2") is not None
        raw.delete(live)
        kept.look()  # it is still remembered
        assert read(store, "dsp_1") is not None


async def test_a_delegated_room_keeps_its_dispatch_until_the_ledger_has_it(
    store: Ledger, kept: Promises, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    first = kept.delegate(new_dispatch("dsp_1"))
    assert kept.delegate(new_dispatch("dsp_2")) == first
    assert kept.delegate(new_dispatch("dsp_3", room_name="another")).new.dispatch_id == "dsp_3"

    own_redis.start()
    await eventually(lambda: read(store))
    await eventually(lambda: kept._delegated == {})
    own_redis.stop()

    assert kept.delegate(new_dispatch("dsp_4")).new.dispatch_id == "dsp_4"


async def test_a_record_that_redis_still_has_is_left_alone(store: Ledger, kept: Promises) -> None:
    accept(store, kept)
    before = read(store)

    kept.look()

    after = read(store)
    assert before is not None
    assert after is not None
    assert (after.state, after.timeline) == (State.QUEUED, before.timeline)


async def test_a_promise_is_forgotten_after_its_deadline(
    store: Ledger, kept: Promises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_dispatches, "MARGIN_S", 0)
    accept(store, kept, deadline_ms=1)
    time.sleep(0.01)

    kept.look()

    assert not kept._promises


def test_no_more_is_delegated_than_can_be_remembered(
    store: Ledger, kept: Promises, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_dispatches, "MAX_BYTES", 10)
    own_redis.stop()
    kept.delegate(new_dispatch("dsp_1", agent_metadata="0123456789"))

    with pytest.raises(LedgerUnavailable):
        kept.delegate(new_dispatch("dsp_2", room_name="another"))


def test_what_is_in_the_ledger_makes_room_for_what_is_delegated(
    store: Ledger, kept: Promises, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_dispatches, "MAX_PROMISES", 2)
    for number in range(3):
        accept(store, kept, dispatch_id=f"dsp_{number}", room_name=f"room-{number}")

    assert list(kept._promises) == ["dsp_1", "dsp_2"]


@pytest.mark.parametrize("here", [True, False], ids=["by this process", "by another one"])
async def test_what_its_client_has_cancelled_does_not_come_back_to_life(
    here: bool, store: Ledger, kept: Promises, own_redis: OwnRedis
) -> None:
    accept(store, kept)
    before = read(store)
    assert before is not None
    assert store.run(endings.cancel(before, retention_s=500)).moved
    if here:
        kept.forget("dsp_1")
    else:
        kept.look()  # as once a second

    own_redis.stop()
    own_redis.start()  # empty
    accept(store, kept, dispatch_id="dsp_2", room_name="another")
    kept.look()

    assert list(kept._promises) == ["dsp_2"]
    assert read(store) is None


def test_a_look_that_has_begun_does_not_write_what_is_forgotten_meanwhile(
    store: Ledger, kept: Promises, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    promise = kept.delegate(new_dispatch())
    kept.forget("dsp_1")
    own_redis.start()

    kept._look_at([promise])

    assert read(store) is None


def test_of_very_many_some_are_looked_at_every_time_and_all_of_them_in_turn(
    store: Ledger, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_dispatches, "LOOK_S", 60)  # only when asked to
    monkeypatch.setattr(accepted_dispatches, "EACH_LOOK", 4)
    kept = Promises(store, retention_s=500, spool=spool)
    looked_at: list[list[str]] = []

    def standing(dispatch_ids: list[str], client_ids: list[str]) -> Any:
        looked_at.append(list(dispatch_ids))
        return restoring.standing(dispatch_ids, client_ids)

    for number in range(10):
        accept(store, kept, dispatch_id=f"dsp_{number}", room_name=f"room-{number}")
    with monkeypatch.context() as patched:
        patched.setattr(
            accepted_dispatches, "restoring", SimpleNamespace(standing=standing, STANDING_LIMIT=500)
        )
        for _ in range(5):
            kept.look()
    kept.close()

    assert all(len(ids) == 4 and ids[-2:] == ["dsp_8", "dsp_9"] for ids in looked_at)
    assert {dispatch_id for ids in looked_at[:4] for dispatch_id in ids} == {
        f"dsp_{number}" for number in range(10)
    }


def test_when_one_of_very_many_is_missing_all_are_written_again(
    store: Ledger, spool: Spool, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_dispatches, "LOOK_S", 60)
    monkeypatch.setattr(accepted_dispatches, "EACH_LOOK", 4)
    kept = Promises(store, retention_s=500, spool=spool)
    for number in range(9):
        accept(store, kept, dispatch_id=f"dsp_{number}", room_name=f"room-{number}")
    own_redis.stop()
    own_redis.start()

    kept.look()
    kept.close()

    assert all(read(store, f"dsp_{number}") is not None for number in range(9))


# A web process that promises without Redis, and is killed.
_PROMISE = """
import os, signal, sys
from pathlib import Path
from dispatcher.settings import CommonSettings, load
from dispatcher.ledger.client import Ledger
from tests.support.values import new_dispatch
from web.state.accepted_dispatches import Promises
from web.state.promise_files import Spool

kept = Promises(Ledger(load(CommonSettings)), retention_s=500, spool=Spool(Path(sys.argv[1])))
kept.delegate(new_dispatch(agent_metadata="a secret"))
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_what_a_killed_process_had_delegated_another_one_writes(
    store: Ledger, kept: Promises, own_redis: OwnRedis, tmp_path: Path
) -> None:
    own_redis.stop()
    killed = subprocess.run(
        [sys.executable, "-c", _PROMISE, str(tmp_path / "spool")],
        cwd=PROJECT_ROOT,
        env={**os.environ, "REDIS_URL": own_redis.url},
        timeout=30,
    )
    assert killed.returncode == -signal.SIGKILL
    (file,) = (tmp_path / "spool").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert "generation" not in json.loads(file.read_text())  # earlier releases cannot read it
    os.utime(file, (time.time() - 7, time.time() - 7))
    own_redis.start()

    record = await eventually(lambda: read(store))

    assert record is not None
    assert (record.state, record.agent_metadata) == (State.DELEGATED, "a secret")
    assert record.updated_at_ms - record.requested_at_ms >= 7000
    await eventually(lambda: not list((tmp_path / "spool").iterdir()))


def test_nothing_is_taken_from_a_process_that_lives_or_that_keeps_it(
    store: Ledger, kept: Promises, own_redis: OwnRedis, tmp_path: Path
) -> None:
    own_redis.stop()
    kept.delegate(new_dispatch())
    (own,) = (tmp_path / "spool").iterdir()
    others = own.with_name(f"dsp_2.{os.getppid()}")
    others.write_text(own.read_text())

    with pytest.raises(LedgerUnavailable):
        kept.look()

    assert others.exists()
    assert list(kept._promises) == ["dsp_1"]


def test_a_promise_whose_caller_cannot_come_any_more_is_told_and_dropped(
    kept: Promises, own_redis: OwnRedis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.stop()
    old = tmp_path / "spool" / "dsp_old.1"
    old.write_text("{}")
    os.utime(old, (0, 0))

    with pytest.raises(LedgerUnavailable):
        kept.look()

    assert not old.exists()
    assert "a promise was never written" in caplog.text


def test_a_folder_that_others_may_read_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)

    Spool(tmp_path / "open").keep(new_dispatch())

    assert not list((tmp_path / "open").iterdir())
    assert "not this user's alone" in caplog.text
