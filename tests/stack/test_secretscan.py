"""Is a secret found that somebody has put into a file, and what is known to be none not?"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT
from devstack.secretscan import look

# Made up here, or the scan would find it in this file.
SECRET = urlsafe_b64encode(sha256(b"a made-up secret").digest()).decode().rstrip("=")


@pytest.mark.parametrize(
    "line",
    [
        'API_KEY = "usk_{}"',
        "livekit_api_secret: '{}'",
        "REDIS_URL=redis://usher:{}@redis.example:6379/0",
    ],
)
def test_a_new_one_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "settings.py"
    path.write_text("first = 1\n" + line.format(SECRET) + "\n")
    _, new = look(str(path))
    assert [said.partition(": ")[0] for said in new] == [f"{path}:2"]


def test_what_was_looked_at_is_known_wherever_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tests/unit/lifecycle/test_webhooks.py"
    moved = tmp_path / name
    moved.parent.mkdir(parents=True)
    moved.write_text("\n" * 7 + (PROJECT_ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)
    found, new = look(name)
    assert list(found)
    assert new == []
