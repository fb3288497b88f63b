"""Where may events be sent, what do they say, how are they signed, and when is it tried again?"""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from dispatcher.domain.urls import is_public, webhook_url
from dispatcher.ledger.outbox import Event
from dispatcher.lifecycle.client_limits import CLIENT_SLOTS, SLOTS, Slots
from dispatcher.lifecycle.webhook_delivery import body, signed, wait_after
from dispatcher.lifecycle.webhook_http import NotDelivered
from dispatcher.settings import DispatcherSettings
from tests.support.receiver import SECRET

OTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtb3Itc28="  # pragma: allowlist secret
EVENT = Event(
    event_id="msg_1_1_joined",
    event_type="dispatch.joined",
    client_id="acme",
    dispatch_id="dsp_1",
    at_ms=1_700_000_000_123,
    summary={"state": "joined", "generation": "1", "room_name": "r", "joined_at_ms": "5"},
    tries=0,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::a00:1",
        "::ffff:0:10.0.0.1",
        "::10.0.0.1",
        "fec0::1",
        "2002:808:808::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2a00:1450::5efe:10.0.0.1",
        "2a00:1450::200:5efe:10.0.0.1",
        "3fff::1",
        "5f00::1",
        "4000::1",
        "192.88.99.1",
    ],
)
def test_an_address_of_our_own_world_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://127.0.0.1/",
        "http://10.0.0.1/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://user:secret@example.com/",  # pragma: allowlist secret
        "https://example.com:99999/",
        "https:///path",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://[broken/",
        "https://127.0.0.1./",
        "https://localhost/",
        "https://localhost./",
        "https://inner.localhost/",
        "https://\uff11\uff12\uff17.0.0.1/",  # full-width digits: 127.0.0.1 to aiohttp
        "https://127\u30020\u30020\u30021/",
        "https://m\u00fcnchen.example/",
        "",
    ],
)
def test_a_url_that_nothing_may_be_sent_to_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        webhook_url(url, allow_private=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://example.com/a?b", "https://8.8.8.8:8443/"])
def test_https_to_the_internet_is_allowed(url: str) -> None:
    webhook_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:1/", True),
        ("http://localhost/", True),
        ("https://10.0.0.1/", True),
        ("https://receiver.localhost/", True),
        ("http://10.0.0.1/", False),
        ("http://example.com/", False),
    ],
)
def test_development_allows_private_addresses_and_http_to_loopback(url: str, allowed: bool) -> None:
    if allowed:
        webhook_url(url, allow_private=True)
    else:
        with pytest.raises(ValueError, match="must begin with https://"):
            webhook_url(url, allow_private=True)


def test_an_event_says_what_became_of_which_dispatch() -> None:
    assert json.loads(body(EVENT)) == {
        "type": "dispatch.joined",
        "timestamp": "2023-11-14T22:13:20.123+00:00",
        "data": {
            "dispatch_id": "dsp_1",
            "state": "joined",
            "generation": 1,
            "room_name": "r",
            "joined_at_ms": 5,
        },
    }


def test_the_signature_is_that_of_standard_webhooks_for_each_live_secret() -> None:
    headers = signed(f"{SECRET} {OTHER_SECRET}", "msg_1", "{}", datetime.now(UTC))

    for secret in (SECRET, OTHER_SECRET):
        assert Webhook(secret).verify("{}", headers) == {}
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify("{} ", headers)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a"])
def test_without_a_proper_secret_nothing_is_sent(secret: str) -> None:
    with pytest.raises(NotDelivered, match="webhook_secret is not valid"):
        signed(secret, "msg_1", "{}", datetime.now(UTC))


def test_it_is_tried_for_some_hours_and_no_longer() -> None:
    waits_s = DispatcherSettings().webhook_waits_s

    waits = [wait_after(tries, waits_s) for tries in range(1, 10)]

    assert waits[:2] == [5.0, 30.0]
    assert waits[-1] is None
    assert 2 < sum(wait or 0 for wait in waits) / 3600 < 4


def test_one_client_has_some_of_the_deliveries_and_all_of_them_have_a_bound() -> None:
    slots = Slots()
    with ExitStack() as on_their_way:

        def took(client_id: str) -> bool:
            return on_their_way.enter_context(slots.take(client_id))

        assert [took("a") for _ in range(CLIENT_SLOTS + 1)] == [True] * CLIENT_SLOTS + [False]
        assert [took(f"b{number}") for number in range(SLOTS)].count(True) == SLOTS - CLIENT_SLOTS
    with slots.take("a") as free_again:
        assert free_again
