"""What a caller was told had failed is not done later, when Redis comes to it after all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import redis
from flask.testing import FlaskClient

from dispatcher.clients.registry import registry
from dispatcher.settings import CommonSettings
from tests.support.clocks import goes_back
from tests.support.ownredis import OwnRedis
from web import create_app

URL = "/api/v1/dispatches"


@pytest.fixture
def own_raw(own_redis: OwnRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def door(own_common: CommonSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """The application, whose client has nothing delegated, with a Redis that can be frozen."""
    for name, value in {
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "a-secret-of-at-least-32-characters",
        "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
        "USHER_AGENT_NAMES": "helper",
        "USHER_DELEGATE": "false",
    }.items():
        monkeypatch.setenv(name, value)
    registry.cache_clear()
    app = create_app()
    registry.cache_clear()
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer key"
    yield client
    app.extensions["usher"].promises.close()


def rooms(raw: redis.Redis) -> set[str | None]:
    """The rooms that have a dispatch."""
    found = [key for key in raw.scan_iter("usher:dispatch:*") if not key.endswith("timeline")]
    return {raw.hget(key, "room_name") for key in found}


def test_a_session_that_was_answered_503_while_redis_hung_does_not_come_to_be(
    door: FlaskClient, own_redis: OwnRedis, own_raw: redis.Redis
) -> None:
    assert door.post(URL, json={"room_name": "before"}).status_code == 200
    with own_redis.frozen():
        assert door.post(URL, json={"room_name": "refused"}).status_code == 503

    # Its connection was readable before this one was there, so Redis has come to it before.
    own_raw.ping()
    assert rooms(own_raw) == {"before"}
    assert own_raw.llen("dispatch") == 1


def test_a_web_that_has_known_the_clock_wrong_asks_once_more(
    door: FlaskClient, own_redis: OwnRedis, own_raw: redis.Redis
) -> None:
    assert door.post(URL, json={"room_name": "before"}).status_code == 200
    goes_back(own_raw, by_s=600)  # the ledger's clock has been set forward

    assert door.post(URL, json={"room_name": "after"}).status_code == 200

    assert rooms(own_raw) == {"before", "after"}
