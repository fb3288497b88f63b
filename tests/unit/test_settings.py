"""Does a wrong setting give one clear line, and does no secret ever show?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from pydantic_settings import BaseSettings

from dispatcher.clients.models import KeyKind
from dispatcher.clients.registry import registry
from dispatcher.errors import ConfigurationError
from dispatcher.settings import ClientSettings, CommonSettings, DispatcherSettings, load, timings
from tests.support.values import TIMINGS
from worker_agent.settings import AgentSettings

SECRET = "s3cr3t-value-that-must-never-show-anywhere"
REDIS_URL = f"redis://:{SECRET}@127.0.0.1:6379/0"
RIGHT = {
    "REDIS_URL": REDIS_URL,
    "LIVEKIT_URL": "ws://127.0.0.1:7880",
    "LIVEKIT_API_KEY": "a-key",
    "LIVEKIT_API_SECRET": SECRET,
    "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
}
EVERY = [CommonSettings, ClientSettings, DispatcherSettings, AgentSettings]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but what is right and needed."""
    for name in list(os.environ):
        if name.startswith(("USHER_", "LIVEKIT_", "REDIS_")):
            monkeypatch.delenv(name)
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    registry.cache_clear()
    yield
    registry.cache_clear()


def test_the_timings_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timings(load(CommonSettings), load(DispatcherSettings)) == TIMINGS

    changed = {
        "USHER_VERIFY_TIMEOUT_S": ("verify_timeout_s", 11.0),
        "USHER_VERIFY_POLL_S": ("verify_poll_s", 0.7),
        "USHER_OFFER_TIMEOUT_S": ("offer_timeout_s", 3.0),
        "USHER_WAKE_GRACE_S": ("wake_grace_s", 4.0),
        "USHER_RETENTION_S": ("retention_s", 90),
    }
    for variable, (_, value) in changed.items():
        monkeypatch.setenv(variable, str(value))
    assert asdict(timings(load(CommonSettings), load(DispatcherSettings))) == dict(changed.values())


@pytest.mark.parametrize("settings", EVERY)
def test_what_is_needed_is_enough(settings: type[BaseSettings]) -> None:
    load(settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (CommonSettings, "REDIS_URL"),
        (ClientSettings, "LIVEKIT_URL"),
        (ClientSettings, "LIVEKIT_API_KEY"),
        (ClientSettings, "LIVEKIT_API_SECRET"),
        (ClientSettings, "USHER_API_KEY_SHA256"),
        (AgentSettings, "LIVEKIT_URL"),
    ],
)
def test_a_missing_variable_is_named_in_one_line(
    settings: type[BaseSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)

    with pytest.raises(ConfigurationError) as caught:
        load(settings)

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__  # else the traceback shows what pydantic was given


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (CommonSettings, "USHER_REDIS_TIMEOUT_S", "soon-31337"),
        (CommonSettings, "USHER_REDIS_TIMEOUT_S", "-31337"),
        (CommonSettings, "USHER_LOG_FORMAT", "xml-31337"),
        (CommonSettings, "USHER_RETENTION_S", "31337.5"),
        (ClientSettings, "LIVEKIT_API_SECRET", "short-31337"),
        (ClientSettings, "USHER_CLIENT_ID", "ACME:31337"),
        (ClientSettings, "USHER_API_KEY_SHA256", "31337"),
        (ClientSettings, "USHER_PUBLISHABLE_KEY_SHA256", "31337"),
        (ClientSettings, "USHER_DEADLINE_S", "31337"),
        (DispatcherSettings, "USHER_SWEEP_LIMIT", "-31337"),
        (AgentSettings, "USHER_AGENT_PORT", "313370"),
        (AgentSettings, "USHER_AGENT_EXECUTOR", "fiber-31337"),
        (AgentSettings, "USHER_AGENT_ENTRYPOINT", "no-colon-31337"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_repeated(
    settings: type[BaseSettings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as caught:
        load(settings)

    assert name in str(caught.value)
    assert "31337" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_missing_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RIGHT:
        monkeypatch.delenv(name)

    with pytest.raises(ConfigurationError) as caught:
        load(ClientSettings)

    for name in RIGHT.keys() - {"REDIS_URL"}:
        assert name in str(caught.value)


@pytest.mark.parametrize("settings", EVERY)
def test_no_secret_is_in_a_settings_repr(settings: type[BaseSettings]) -> None:
    loaded = load(settings)

    assert SECRET not in f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"


def test_no_secret_is_in_a_clients_repr() -> None:
    assert SECRET not in repr(registry())
    assert RIGHT["USHER_API_KEY_SHA256"] not in repr(registry())


@pytest.mark.parametrize("settings", EVERY)
def test_only_variables_by_their_full_names_count(
    settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(settings)
    for field in settings.model_fields:
        alias = settings.model_fields[field].alias
        if field.upper() != alias:
            monkeypatch.setenv(field.upper(), "7")  # PORT and HOST belong to whoever runs us

    assert load(settings) == before


def test_a_client_is_found_by_its_key_and_nobody_by_a_wrong_one() -> None:
    clients = registry()

    assert clients.by_key("key") == (clients.clients[0], clients.clients[0].keys[0])
    assert clients.by_key("key ") is None
    assert clients.by_key("") is None
    assert clients.by_key(RIGHT["USHER_API_KEY_SHA256"]) is None


def test_a_client_may_use_the_agents_that_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USHER_AGENT_NAMES", " first, second ,")
    client = registry().clients[0]

    assert client.default_agent_name == "first"
    assert [client.may_use(name) for name in ("first", "second", "", "third")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("scheme", ["wss", "ws", "https", "http"])
def test_livekit_is_named_by_a_url_that_its_clients_know(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_URL", f"{scheme}://livekit.internal:7880")

    assert registry().clients[0].livekit.url == f"{scheme}://livekit.internal:7880"


@pytest.mark.parametrize(
    "url",
    ["localhost:31337", "livekit.31337", "redis://livekit:31337", "wss://", "wss://a@b:31337"],
)
def test_what_is_no_url_of_livekit_s_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", url)

    with pytest.raises(ConfigurationError, match="LIVEKIT_URL: must") as caught:
        registry()

    assert "31337" not in str(caught.value)


def test_a_list_of_agents_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USHER_AGENT_NAMES", " , ")

    with pytest.raises(ConfigurationError, match="USHER_AGENT_NAMES"):
        registry()


@pytest.mark.parametrize(
    ("url", "in_development"),
    [
        ("http://receiver.example/canary-31337", False),
        ("https://10.0.0.1/canary-31337", True),
        ("http://127.0.0.1:8000/canary-31337", True),
        ("https://ann:canary-31337@receiver.example/", False),  # pragma: allowlist secret
    ],
)
def test_a_webhook_url_that_nothing_may_be_sent_to_is_refused_at_the_start(
    url: str, in_development: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USHER_WEBHOOK_URL", url)
    with pytest.raises(ConfigurationError, match="USHER_WEBHOOK_URL: it must") as caught:
        registry()
    assert "31337" not in str(caught.value)

    monkeypatch.setenv("USHER_WEBHOOK_ALLOW_PRIVATE", "true")
    if in_development:
        assert registry().clients[0].webhook_url == url
    else:
        with pytest.raises(ConfigurationError, match="USHER_WEBHOOK_URL"):
            registry()


def test_the_one_client_may_have_pages_and_a_key_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USHER_ORIGINS", "https://app.example, http://localhost:3000,")
    monkeypatch.setenv("USHER_PUBLISHABLE_KEY_SHA256", hashlib.sha256(b"page").hexdigest())
    client = registry().clients[0]

    assert client.origins == ("https://app.example", "http://localhost:3000")
    kinds = {key: found[1].kind for key in ("key", "page") if (found := registry().by_key(key))}
    assert kinds == {"key": KeyKind.SECRET, "page": KeyKind.PUBLISHABLE}


@pytest.mark.parametrize("origins", ["https://x.31337/", "http://x.31337", "*", "https://a b"])
def test_an_origin_that_no_browser_sends_is_refused(
    origins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USHER_ORIGINS", f"https://app.example,{origins}")

    with pytest.raises(ConfigurationError, match="USHER_ORIGINS: each must be") as caught:
        registry()

    assert "31337" not in str(caught.value)


def test_the_secret_key_cannot_be_the_publishable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USHER_PUBLISHABLE_KEY_SHA256", RIGHT["USHER_API_KEY_SHA256"])

    with pytest.raises(ConfigurationError, match="USHER_PUBLISHABLE_KEY_SHA256"):
        registry()


def test_a_record_of_a_client_that_is_gone_names_that_client() -> None:
    with pytest.raises(ConfigurationError, match="'globex'"):
        registry().by_id("globex")
