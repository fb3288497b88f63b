"""Is what is secret taken out of a record, whatever holds it and whoever logs it?"""

from __future__ import annotations

import io
import json
import logging
import time

import aiohttp
import jwt
import pytest
from google.protobuf.json_format import MessageToDict
from livekit.protocol.models import Room as LiveKitRoom
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from dispatcher.observability import redaction
from dispatcher.observability.redaction import HIDDEN, redact
from tests.unit.observability.test_logs import configured, only_line

TOKEN = jwt.encode({"sub": "a-person"}, "x" * 40, algorithm="HS256")
CANARY = "c4nary-of-the-system-prompt"


SECRETS = [
    (f"failed with {TOKEN}.", f"failed with {HIDDEN}."),
    (f"cut off: {TOKEN[:40]}", f"cut off: {HIDDEN}"),
    (f"wss://lk.example/rtc?access_token={TOKEN}&sdk=js", None),
    ("Authorization: Bearer usk_c4nary-of-a-key-0123456789", None),
    ("Authorization: Basic b3BlcmF0b3I6YzRuYXJ5", None),
    ("key usk_c4nary0123456789 refused", f"key usk_{HIDDEN} refused"),
    # pragma: allowlist nextline secret
    ("rediss://usher:c4nary%3Apass@redis:6379/0", f"rediss://usher:{HIDDEN}@redis:6379/0"),
    ("redis://:c4nary@redis:6379/0", f"redis://:{HIDDEN}@redis:6379/0"),
    ("redis://:c4n@ry@redis:6379/0", f"redis://:{HIDDEN}@redis:6379/0"),
    (f'{{"id": 1, "metadata": "{CANARY} \\"x\\""}}', f'{{"id": 1, "metadata": "{HIDDEN}"}}'),
    (f"{{'agent_metadata': '{CANARY}'}}", None),
    (str(LiveKitRoom(name="a", metadata=CANARY)), None),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has the process hide, it hides for this test alone."""
    monkeypatch.setattr(redaction, "_held", set())
    monkeypatch.setattr(redaction, "_holding", None)


def handshake_error() -> aiohttp.WSServerHandshakeError:
    """What aiohttp raises when LiveKit refuses a connection: the request is in it."""
    headers = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {TOKEN}"}))
    url = URL("ws://127.0.0.1:7880/agent")
    request = aiohttp.RequestInfo(url, "GET", headers, url)
    return aiohttp.WSServerHandshakeError(request, (), status=401, message="Invalid", headers=None)


@pytest.mark.parametrize(("text", "left"), SECRETS)
def test_secrets_are_known_by_their_form(text: str, left: str | None) -> None:
    hidden = redact(text)

    assert HIDDEN in hidden
    assert "c4nary" not in hidden
    assert TOKEN[:20] not in hidden
    if left is not None:
        assert hidden == left


@pytest.mark.parametrize(
    "text",
    [
        *(text for text, _ in SECRETS),
        "AUTHORIZATION: BEARER c4nary-of-a-key-0123456789",
        "Metadata='c4nary'",
        "upk_c4nary0123456789 and whsec_c4nary0123456789",
    ],
)
def test_each_form_is_hidden_in_a_record(text: str) -> None:
    with configured("json") as lines:
        logging.getLogger("some.logger").info(text)
        logging.getLogger("some.logger").info("said", extra={"said": text})

    assert lines.getvalue().count(HIDDEN) >= 2
    assert "c4nary" not in lines.getvalue()
    assert TOKEN[:20] not in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "Redis did not answer (ConnectionError); check REDIS_URL and that Redis is up",
        "Basic authentication is wanted, a Bearer token is not",
        "redis://127.0.0.1:6379/0 and http://localhost:8080/readyz at user@host",
        "dispatch dsp_Gif-O3RG3ulu_MlkHIFkgA of room room-1: no metadata: none",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a", "a.", "eyJ", "://a:", "metadata: ", "\\", '"', "usk_"])
def test_a_long_line_takes_no_time_to_speak_of(piece: str) -> None:
    began = time.process_time()
    redact(piece * (400_000 // len(piece)))

    assert time.process_time() - began < 1


def test_what_the_process_holds_is_hidden_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    redaction.hide_environment(
        {
            "LIVEKIT_API_KEY": "APIabcdefgh",
            "LIVEKIT_API_SECRET": "c4nary-livekit-secret",
            "FLOWER_BASIC_AUTH": "admin:c4nary-flower",
            "OPENAI_API_KEY": "c4nary-of-openai",
            "REDIS_URL": "rediss://usher:c4nary%3Aredis@redis:6379/0",  # pragma: allowlist secret
            "SHORT_TOKEN": "a",
        }
    )
    told = "APIabcdefgh c4nary-livekit-secret c4nary-flower c4nary-of-openai c4nary:redis a"

    assert redact(told) == f"APIabcdefgh {HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN} a"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_failed_connection_is_logged_without_its_token(log_format: str) -> None:
    with configured(log_format) as lines:
        log = logging.getLogger("livekit.agents")
        log.warning("retrying in %s", handshake_error(), extra={"error": handshake_error()})
        log.warning("retrying", extra={"error": handshake_error(), "request": {"a": [TOKEN]}})
        try:
            raise RuntimeError(f"refused: {handshake_error()!r}")
        except RuntimeError:
            log.exception("failed to connect")
        log.error("args do not fit %s %s", TOKEN)

    text = lines.getvalue()
    assert TOKEN[:20] not in text
    assert text.count(HIDDEN) >= 4
    for part in ("retrying", "failed to connect", "401", "RuntimeError: refused", "Traceback"):
        assert part in text
    assert "test_redaction.py" in text  # the traceback says where


def test_a_job_is_logged_without_its_metadata() -> None:
    room = LiveKitRoom(name="room-1", metadata=CANARY)
    with configured("json") as lines:
        logging.getLogger("livekit.agents").warning(
            "received assignment for an unknown job",
            extra={"job": MessageToDict(room), "text": str(room), "room": room},
        )

    assert CANARY not in lines.getvalue()
    assert only_line(lines)["job"] == {"name": "room-1", "metadata": HIDDEN}


def test_an_exception_without_a_secret_is_logged_as_before() -> None:
    with configured("json") as lines:
        try:
            raise ValueError("the cause")
        except ValueError:
            logging.getLogger("some.logger").exception("it broke")

    assert only_line(lines)["exception"].endswith("ValueError: the cause")


def test_what_cannot_be_printed_is_no_reason_to_lose_the_line() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("not now")

    with configured("json") as lines:
        logging.getLogger("some.logger").info("said", extra={"odd": Odd()})

    assert "RuntimeError" in only_line(lines)["odd"]


def test_a_programs_own_handlers_are_guarded_too() -> None:
    log, lines = logging.getLogger("a.program.of.its.own"), io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(message)s %(error)s"))
    log.handlers, log.propagate = [handler], False
    redaction.guard(log)
    redaction.guard(log)

    try:
        raise RuntimeError(TOKEN)
    except RuntimeError:
        logging.getLogger("a.program.of.its.own.child").exception(
            "failed %r", handshake_error(), extra={"error": handshake_error()}
        )

    assert len(handler.filters) == 1
    assert TOKEN[:20] not in lines.getvalue()
    assert f"RuntimeError: {HIDDEN}" in lines.getvalue()


def test_json_stays_json() -> None:
    with configured("json") as lines:
        logging.getLogger("x").info('a "quoted" %s', TOKEN, extra={"password": "c4nary", "n": 3})

    line = json.loads(lines.getvalue())
    assert line["event"] == f'a "quoted" {HIDDEN}'
    assert (line["password"], line["n"]) == (HIDDEN, 3)
