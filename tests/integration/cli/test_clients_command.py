"""Does the command leave a file that is right, private and still its owner's? As a process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import redis

from dispatcher.clients.models import Client, KeyKind
from dispatcher.clients.schema import Surroundings, parse
from dispatcher.ledger import reports
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.clientsfile import ENVIRON, a_client
from tests.support.values import WAIT_S

Run = Callable[..., subprocess.CompletedProcess[str]]
GLOBEX = ("--livekit-api-key", "k", "--livekit-api-secret", "env:globex_LIVEKIT_SECRET")
NEW = ("--livekit-api-key", "k", "--livekit-api-secret", "env:TEST_LIVEKIT_SECRET", "--agent", "a")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a word of its owner's in it."""
    path = tmp_path / "clients.toml"
    path.write_text("# who may what\n")
    path.chmod(0o644)
    return path


@pytest.fixture
def run(path: Path, common: CommonSettings) -> Run:
    """Runs the command on that file."""

    def command(*arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dispatcher.cli.clients", *arguments],
            env={**os.environ, "USHER_CLIENTS_FILE": str(path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done

    return command


def clients_in(path: Path) -> dict[str, Client]:
    found = parse(path.read_text(), name="", around=Surroundings(environ=ENVIRON))
    return {client.client_id: client for client in found}


def printed_keys(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^u[sp]k_\S+$", done.stdout, re.MULTILINE)


def test_a_key_is_printed_once_and_only_its_digest_is_kept(run: Run, path: Path) -> None:
    done = run("add", "acme", "--livekit-url", "wss://a.example", *NEW, "--origin", "https://x.eu")

    secret, publishable = printed_keys(done)
    assert (secret[:4], publishable[:4]) == ("usk_", "upk_")
    assert len(secret) == len(publishable) == 4 + 43  # 256 bits
    text = path.read_text()
    assert text.startswith("# who may what\n")
    assert not [key for key in (secret, publishable) if key in text]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = clients_in(path)["acme"]
    assert [(key.kind, key.sha256) for key in client.keys] == [
        (KeyKind.SECRET, sha256(secret.encode()).hexdigest()),
        (KeyKind.PUBLISHABLE, sha256(publishable.encode()).hexdigest()),
    ]
    shown = run("show", "acme").stdout + run("list").stdout
    assert not [key.sha256 for key in client.keys if key.sha256 in shown]


def test_two_keys_live_side_by_side_until_the_old_one_is_retired(run: Run, path: Path) -> None:
    (old,) = printed_keys(run("add", "acme", "--livekit-url", "wss://a.example", *NEW))
    (new,) = printed_keys(run("rotate", "acme"))
    first, second = clients_in(path)["acme"].keys
    assert [first.sha256, second.sha256] == [sha256(k.encode()).hexdigest() for k in (old, new)]

    refused = run("rotate", "acme", ok=False)
    assert "2 live secret keys already" in refused.stderr
    assert first.key_id in refused.stderr
    run("rotate", "acme", "--kind", "publishable")  # another kind has its own two
    run("rotate", "acme", "--retire", first.key_id)
    assert first.key_id not in {key.key_id for key in clients_in(path)["acme"].keys}
    run("rotate", "acme")
    assert "no key" in run("rotate", "acme", "--retire", first.key_id, ok=False).stderr


def test_what_would_be_wrong_is_not_written(run: Run, path: Path) -> None:
    before = path.read_text()
    canary = "canary-31337-of-at-least-32-characters"
    literal = ("--livekit-api-key", "k", "--livekit-api-secret", canary, "--agent", "a")

    for arguments in (
        ("add", "acme", "--livekit-url", "wss://a.example", *literal),
        ("add", "acme", "--livekit-url", "ws://a.example", *NEW),
        ("add", "ACME", "--livekit-url", "wss://a.example", *NEW),
    ):
        refused = run(*arguments, ok=False)
        assert "nothing was written" in refused.stderr
        assert canary not in refused.stderr + refused.stdout
        assert not printed_keys(refused)
        assert path.read_text() == before


def test_a_client_is_disabled_and_enabled_and_the_rest_of_the_file_stays(
    run: Run, path: Path
) -> None:
    run("add", "acme", "--livekit-url", "wss://a.example", *NEW)
    run("add", "globex", "--livekit-url", "wss://g.example", *GLOBEX, "--agent", "a")
    path.write_text(path.read_text() + "# the end\n")

    run("disable", "acme")
    found = clients_in(path)
    assert (found["acme"].disabled, found["globex"].disabled) == (True, False)
    assert "acme  disabled" in run("list").stdout
    run("enable", "acme")
    assert not clients_in(path)["acme"].disabled
    assert path.read_text().startswith("# who may what\n")
    assert "# the end" in path.read_text()


def test_a_client_with_open_sessions_is_not_removed(run: Run, path: Path, raw: redis.Redis) -> None:
    run("add", "acme", "--livekit-url", "wss://a.example", *NEW)
    run("add", "globex", "--livekit-url", "wss://g.example", *GLOBEX, "--agent", "a")
    raw.zadd("usher:sessions:acme", {"dsp_1": 1})

    assert "1 sessions that have not ended" in run("remove", "acme", ok=False).stderr
    assert set(clients_in(path)) == {"acme", "globex"}
    raw.delete("usher:sessions:acme")
    run("remove", "acme")
    assert set(clients_in(path)) == {"globex"}


def test_the_last_use_of_each_key_is_shown(run: Run, path: Path, store: Ledger) -> None:
    run("add", "acme", "--livekit-url", "wss://a.example", *NEW)
    run("rotate", "acme")
    used, unused = clients_in(path)["acme"].keys
    store.run(reports.key_used("acme", used.key_id))

    lines = run("show", "acme").stdout.splitlines()

    assert re.search(r"last used \d{4}-\d\d-\d\d \d\d:", next(s for s in lines if used.key_id in s))
    assert next(s for s in lines if unused.key_id in s).endswith("last used never")


def _has_open(pid: int, folder: Path) -> bool:
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
            if os.readlink(opened) == str(folder):
                return True
    return False


def test_whoever_edits_at_the_same_time_waits_and_loses_nothing(
    path: Path, common: CommonSettings
) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    command = subprocess.Popen(
        [
            *(sys.executable, "-m", "dispatcher.cli.clients", "--file", str(path)),
            *("add", "second", "--livekit-url", "wss://second.example", *GLOBEX, "--agent", "a"),
        ],
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + WAIT_S
    while not _has_open(command.pid, path.parent.resolve()):
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(timeout=0.5)
    path.write_text(a_client("first"))
    os.close(folder)

    assert command.wait(timeout=120) == 0
    assert set(clients_in(path)) == {"first", "second"}
