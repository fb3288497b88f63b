"""Which of LiveKit's failures are worth another try, and which may have been carried out?

A real HTTP server gives each of them, so that aiohttp and livekit-api raise what they raise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import pytest
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.room import ListParticipantsResponse

from dispatcher.cli.doctor import livekit_clock
from dispatcher.clients.models import LiveKitCredentials
from dispatcher.errors import LiveKitError, PermanentLiveKitError, TransientLiveKitError
from dispatcher.livekit.client import LiveKitClients
from tests.support.sockets import Handler, answering, listening, never_answering, read_request

SECRET = "a-secret-of-at-least-32-characters"
TIMEOUT_S = 0.3


@contextlib.asynccontextmanager
async def served(answer: Handler) -> AsyncIterator[str]:
    """The URL of a server that treats every connection as `answer` does."""
    async with listening(answer) as port:
        yield f"ws://127.0.0.1:{port}"


async def error_of(url: str) -> LiveKitError:
    """What one call to `url` raises."""
    clients = LiveKitClients(timeout_s=TIMEOUT_S)
    try:
        client = clients.for_credentials(
            LiveKitCredentials(url=url, api_key="key", api_secret=SECRET)
        )
        with pytest.raises(LiveKitError) as caught:
            await client.look("room")
        return caught.value
    finally:
        await clients.aclose()


def twirp(status: int, code: str) -> Handler:
    return answering(status, json.dumps({"code": code, "msg": "because"}))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_argument"),
        (401, "unauthenticated"),
        (403, "permission_denied"),
        (404, "bad_route"),
        (409, "already_exists"),
        (412, "failed_precondition"),
    ],
)
async def test_a_refusal_is_permanent(status: int, code: str) -> None:
    async with served(twirp(status, code)) as url:
        error = await error_of(url)

    assert isinstance(error, PermanentLiveKitError)
    assert str(error) == f"LiveKit answered {status} {code}: because"


async def test_a_room_that_is_not_found_is_lost_until_its_person_joins_again() -> None:
    async with served(twirp(404, "not_found")) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert not error.outcome_unknown
    assert "join again" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "outcome_unknown"),
    [
        (408, "deadline_exceeded", True),
        (408, "canceled", True),
        (429, "resource_exhausted", False),
        (500, "internal", True),
        (501, "unimplemented", True),
        (503, "unavailable", True),
    ],
)
async def test_too_much_or_too_slow_or_broken_is_transient(
    status: int, code: str, outcome_unknown: bool
) -> None:
    async with served(twirp(status, code)) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert error.outcome_unknown is outcome_unknown
    assert str(status) in str(error)


async def test_a_gateway_that_answers_in_html_is_transient() -> None:
    async with served(answering(502, "<h1>Bad Gateway</h1>", "text/html")) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert error.outcome_unknown


async def test_nothing_listening_is_transient_and_surely_not_carried_out() -> None:
    with socket.socket() as bound:  # bound and not listening: refused, and nobody else can have it
        bound.bind(("127.0.0.1", 0))
        error = await error_of(f"ws://127.0.0.1:{bound.getsockname()[1]}")

    assert isinstance(error, TransientLiveKitError)
    assert not error.outcome_unknown


async def test_a_server_that_never_answers_is_transient_and_may_have_done_it() -> None:
    async with served(never_answering) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert error.outcome_unknown


async def test_a_server_that_hangs_up_is_transient_and_may_have_done_it() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with served(hang_up) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert error.outcome_unknown


async def test_a_url_that_is_none_is_permanent_and_names_the_setting() -> None:
    error = await error_of("ws://")

    assert isinstance(error, PermanentLiveKitError)
    assert "LIVEKIT_URL" in str(error)


@pytest.mark.parametrize("answer", [twirp(401, "unauthenticated"), twirp(503, "unavailable")])
async def test_no_error_tells_the_key_or_the_secret(answer: Handler) -> None:
    async with served(answer) as url:
        error = await error_of(url)

    assert SECRET not in repr(error) + str(error)


async def test_an_answer_that_is_no_protobuf_is_transient() -> None:
    async with served(answering(200, "\x07 not protobuf", "application/protobuf")) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert error.outcome_unknown


@pytest.mark.parametrize("body", ["[]", '"x"', "null", "7", "", "{"])
async def test_a_gateways_error_of_whatever_shape_is_an_error_of_livekits(body: str) -> None:
    async with served(answering(503, body)) as url:
        error = await error_of(url)

    assert isinstance(error, TransientLiveKitError)
    assert error.outcome_unknown


async def test_a_gateway_that_refuses_in_its_own_words_is_permanent() -> None:
    async with served(answering(403, "<h1>Forbidden</h1>", "text/html")) as url:
        error = await error_of(url)

    assert isinstance(error, PermanentLiveKitError)
    assert "403" in str(error)


async def test_a_server_that_speaks_no_http_is_transient() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\xff not HTTP\r\n\r\n")
        await writer.drain()

    async with served(babble) as url:
        error = await error_of(url)
        assert await livekit_clock(url) is None

    assert isinstance(error, TransientLiveKitError)


async def test_a_generation_that_no_dispatch_can_have_is_none() -> None:
    listed = ListParticipantsResponse(
        participants=[
            ParticipantInfo(
                identity="odd",
                kind=ParticipantInfo.AGENT,
                state=ParticipantInfo.ACTIVE,
                attributes={"usher.generation": "9" * 5000},
            )
        ]
    )
    body = listed.SerializeToString().decode("latin-1")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = (
            f"HTTP/1.1 200 X\r\nContent-Type: application/protobuf\r\nContent-Length: {len(body)}"
        )
        writer.write(f"{head}\r\nConnection: close\r\n\r\n{body}".encode("latin-1"))
        await writer.drain()

    async with served(answer) as url:
        clients = LiveKitClients(timeout_s=5)
        client = clients.for_credentials(
            LiveKitCredentials(url=url, api_key="key", api_secret=SECRET)
        )
        (agent,) = (await client.look("room")).agents
        await clients.aclose()

    assert (agent.identity, agent.generation) == ("odd", None)
