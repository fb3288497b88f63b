"""Does an advisory fail the check, and a service that says nothing not look like a clean bill?

OSV is played by a server on loopback; pip-audit is the real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT
from tests.conftest import free_port
from tests.support.sockets import listening, read_request

ADVISORY = "GHSA-aaaa-bbbb-cccc"
KNOWN_BAD, OURS, OTHER = "jinja2", "flask", "click"


class Osv:
    """Knows advisories against these packages."""

    def __init__(self) -> None:
        self.against: set[str] = {KNOWN_BAD}
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, body = (await read_request(reader)).partition(b"\r\n\r\n")
        name = json.loads(body)["package"]["name"]
        advisory = {
            "id": ADVISORY,
            "summary": "a hole",
            "modified": "2026-01-01T00:00:00Z",
            "affected": [
                {
                    "package": {"ecosystem": "PyPI", "name": name},
                    "ranges": [
                        {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}
                    ],
                }
            ],
        }
        answer = json.dumps({"vulns": [advisory]} if name in self.against else {})
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
        writer.write((head + answer).encode())
        await writer.drain()


@pytest.fixture
def osv() -> Iterator[Osv]:
    played = Osv()
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with listening(played.answer) as port:
            played.url = f"http://127.0.0.1:{port}/v1/query"
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield played
    over.set()
    thread.join()


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in (OURS, OTHER)))
    return path


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    path = tmp_path / "accepted.txt"
    path.write_text("# none\n")
    return path


def check(osv_url: str, requirements: Path, accepted: Path) -> subprocess.CompletedProcess[str]:
    """Run the check with that OSV as its only service."""
    return subprocess.run(
        [PROJECT_ROOT / ".ci" / "advisories", requirements, accepted],
        env={**os.environ, "ADVISORY_SERVICES": "osv", "PIP_AUDIT_OSV_URL": osv_url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_nothing_known_is_good(osv: Osv, requirements: Path, accepted: Path) -> None:
    checked = check(osv.url, requirements, accepted)
    assert checked.returncode == 0
    assert "No known vulnerabilities found" in checked.stdout


def test_an_advisory_fails_unless_it_is_accepted_with_a_reason(
    osv: Osv, requirements: Path, accepted: Path
) -> None:
    osv.against.add(OURS)
    checked = check(osv.url, requirements, accepted)
    assert checked.returncode == 1
    assert f"{OURS} 1.0" in " ".join(checked.stdout.split())
    assert ADVISORY in checked.stdout
    accepted.write_text(f"# why\n\n{ADVISORY} \n")
    assert check(osv.url, requirements, accepted).returncode == 1
    accepted.write_text(f"# why\n\n{ADVISORY} we do not use that part of it\n")
    assert check(osv.url, requirements, accepted).returncode == 0


def test_who_knows_nothing_of_a_known_hole_is_not_believed(
    osv: Osv, requirements: Path, accepted: Path
) -> None:
    osv.against.clear()
    checked = check(osv.url, requirements, accepted)
    assert (checked.returncode, "NOT CHECKED" in checked.stdout) == (0, True)


def test_an_unreachable_service_is_said_and_fails_nothing(
    requirements: Path, accepted: Path
) -> None:
    checked = check(f"http://127.0.0.1:{free_port()}/", requirements, accepted)
    assert checked.returncode == 0
    assert checked.stdout == "advisories: NOT CHECKED, no advisory service answers (osv)\n"
