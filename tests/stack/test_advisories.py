"""Does an advisory fail the check, and a service that says nothing not look like a clean bill?

OSV is played by a server on loopback; pip-audit is the real one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import StackError
from devstack.advisories import accepted_advisories, audit
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

    @property
    def service(self) -> dict[str, list[str]]:
        return {"OSV": ["--vulnerability-service", "osv", "--osv-url", self.url]}


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


def test_nothing_known_is_good(
    osv: Osv, requirements: Path, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(osv.service, requirements, accepted) == 0
    assert capsys.readouterr().out == "advisories: 0 for 2 packages, by OSV\n"


def test_an_advisory_fails_unless_somebody_has_accepted_it(
    osv: Osv, requirements: Path, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    osv.against.add(OURS)
    assert audit(osv.service, requirements, accepted) == 1
    assert capsys.readouterr().out == (
        f"advisories: 1 for 2 packages, by OSV\n  {OURS} 1.0: {ADVISORY}, mended in 99\n"
    )
    accepted.write_text(f"{ADVISORY} we do not use that part of it\n")
    assert audit(osv.service, requirements, accepted) == 0


def test_who_knows_nothing_of_a_known_hole_is_not_believed(
    osv: Osv, requirements: Path, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    osv.against.clear()
    assert audit(osv.service, requirements, accepted) == 0
    assert "NOT CHECKED" in capsys.readouterr().out


def test_an_unreachable_service_is_said_and_fails_nothing(
    requirements: Path, accepted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/"
    services = {"OSV": ["--vulnerability-service", "osv", "--osv-url", nowhere]}
    assert audit(services, requirements, accepted) == 0
    assert capsys.readouterr().out == (
        "advisories: NOT CHECKED, no advisory service answers (OSV)\n"
    )


def test_an_accepted_advisory_needs_a_reason() -> None:
    assert accepted_advisories("# why\n\nGHSA-x not ours\n") == {"GHSA-x": "not ours"}
    with pytest.raises(StackError, match=r":2: say why GHSA-y is accepted"):
        accepted_advisories("GHSA-x not ours\nGHSA-y \n")
