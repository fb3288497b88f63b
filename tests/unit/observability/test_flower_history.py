"""Is a save of Flower's that a kill has interrupted finished or given up, but never mixed?"""

from __future__ import annotations

import os
import shelve
from itertools import product
from pathlib import Path

import pytest

from dispatcher.observability.flower_history import finish_save

OLD = {"events": "a short history", "counter": {"dispatch": 1}}
NEW = {"events": "a long history " * 200, "counter": {"dispatch": 2, "verify": 1}}


def save(db: Path, content: dict[str, object]) -> list[Path]:
    """As Flower writes it; the files that Python has made of it."""
    with shelve.open(str(db), flag="n") as state:
        state.update(content)
    return sorted(path for path in db.parent.iterdir() if path.name.startswith(db.name))


def kept(db: Path) -> dict[str, object]:
    with shelve.open(str(db), flag="r") as state:
        return dict(state)


def final(written: Path) -> Path:
    return written.with_name(written.name.replace("tasks.tmp", "tasks"))


@pytest.mark.parametrize("moved", list(product((False, True), repeat=3)))
def test_whichever_files_were_renamed_before_the_kill_the_history_is_of_one_save(
    tmp_path: Path, moved: tuple[bool, ...]
) -> None:
    db = tmp_path / "tasks"
    save(db, OLD)
    written = save(tmp_path / "tasks.tmp", NEW)
    for path, was_moved in zip(written, moved, strict=False):
        if was_moved:
            os.replace(path, final(path))
    finish_save(str(db))
    assert kept(db) in (OLD, NEW)
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_save_that_was_killed_while_it_wrote_is_given_up(tmp_path: Path) -> None:
    db = tmp_path / "tasks"
    save(db, OLD)
    for path in save(tmp_path / "tasks.tmp", NEW):
        path.write_bytes(path.read_bytes()[:10])
    finish_save(str(db))
    assert kept(db) == OLD
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_without_an_unfinished_save_nothing_is_touched(tmp_path: Path) -> None:
    db = tmp_path / "tasks"
    finish_save(str(db))
    assert list(tmp_path.iterdir()) == []
    before = {path: path.read_bytes() for path in save(db, OLD)}
    finish_save(str(db))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
