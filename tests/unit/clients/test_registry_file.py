"""Is a wrong file of clients refused with the line and the reason, and without its secrets?"""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.models import Client, KeyKind
from dispatcher.clients.schema import Surroundings, parse, read
from dispatcher.domain.models import Limits
from dispatcher.errors import ConfigurationError
from tests.support.clientsfile import ENVIRON, LIVEKIT_SECRET, a_client, a_key, digest

CANARY = "canary-31337-that-must-never-show-anywhere"


def clients_of(text: str) -> tuple[Client, ...]:
    return parse(text, name="clients.toml", around=Surroundings(environ=ENVIRON))


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        clients_of(text)
    # Else the traceback shows what pydantic was given.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


def test_a_client_with_everything_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{CANARY}\n")
    more = f"""
container = "box-7"
deadline_s = 12.5
delegates = false
origins = ["https://app.example.com", "http://localhost:3000"]
max_sessions = 10
requests_per_minute = 600
webhook_url = "https://acme.example/hook"
webhook_secret = "file:{tmp_path}/secret"
placement = "direct"
disabled = true
"""
    keys = [
        a_key("acme", "one", more="created = 2026-01-02T03:04:05Z"),
        a_key("acme", "two", kind="publishable", more="disabled = true"),
    ]

    (client,) = clients_of(a_client("acme", *keys, more=more, agents='["a", "b"]'))

    assert client.client_id == "acme"
    assert client.livekit.url == "wss://acme.example"
    assert client.livekit.api_key == "acme-livekit-key"
    assert client.livekit.api_secret == LIVEKIT_SECRET
    assert client.agent_names == ("a", "b")
    assert (client.container, client.deadline_s, client.delegates) == ("box-7", 12.5, False)
    assert client.placement == "direct"
    assert client.origins == ("https://app.example.com", "http://localhost:3000")
    assert client.limits == Limits(requests_per_minute=600, max_sessions=10)
    assert client.webhook_url == "https://acme.example/hook"
    assert client.webhook_secret == CANARY
    assert client.disabled
    assert [(key.key_id, key.kind, key.disabled) for key in client.keys] == [
        ("one", KeyKind.SECRET, False),
        ("two", KeyKind.PUBLISHABLE, True),
    ]
    shown = repr(client)
    assert not [s for s in (CANARY, LIVEKIT_SECRET, digest("one")) if s in shown]


def test_what_is_not_said_is_not_limited() -> None:
    (client,) = clients_of(a_client())

    assert client.limits == Limits(requests_per_minute=0, max_sessions=0)
    assert (client.container, client.deadline_s, client.delegates) == ("", 20.0, True)
    assert (client.keys, client.origins, client.webhook_url) == ((), (), "")
    assert not client.disabled


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("deadline_s = 31337", "less than or equal to 600"),
        ("deadline_s = 'canary-31337'", "valid number"),
        ("max_sessions = 0", "greater than or equal to 1"),
        ("requests_per_minute = -31337", "greater than or equal to 1"),
        ("dedline_s = 3", "not permitted"),
        ("placement = 'canary-31337'", "'livekit' or 'direct'"),
        ('origins = ["https://canary-31337.example/path"]', "as browsers send it"),
        ('origins = ["https://Canary.example"]', "as browsers send it"),
        ('origins = ["https://canary.example:443"]', "as browsers send it"),
        ('origins = ["http://canary-31337.example"]', "without TLS only loopback"),
        ('origins = ["*"]', "must be https://"),
        ('origins = ["null"]', "must be https://"),
        ('webhook_url = "http://canary-31337.example/"', "must begin with https://"),
        ('webhook_url = "http://127.0.0.1:31337/"', "must begin with https://"),
        ('webhook_url = "https://127.0.0.1:31337/"', "must not be a private address"),
        ('webhook_url = "https://169.254.169.254/31337"', "must not be a private address"),
        ('webhook_url = "https://[fd00::1]/31337"', "must not be a private address"),
        ('webhook_url = "https://localhost:31337/"', "must not be a private address"),
        # pragma: allowlist nextline secret
        ('webhook_url = "https://ann:canary-31337@x.example/"', "must not have a user"),
        (f'webhook_secret = "{CANARY}"', "a secret does not stand in this file itself"),
        ('webhook_secret = "env:TEST_NOT_SET"', "TEST_NOT_SET is not set"),
        ('webhook_secret = "file:/nowhere/at/all"', "/nowhere/at/all cannot be read"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line_and_reason_and_is_not_repeated(
    wrong: str, reason: str
) -> None:
    text = a_client("globex") + a_client("acme", a_key("acme", "one"), more=wrong)

    message = refusal(text)

    assert f"clients.toml: line {line_of(text, wrong)}, clients.acme." in message
    assert reason in message
    assert "31337" not in message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ws://canary-31337.example", "without TLS only loopback"),
        ("http://169.254.169.254", "without TLS only loopback"),
        ("ws://127.0.0.1.canary-31337.example", "without TLS only loopback"),
        ("wss://ann:canary-31337@acme.example", "must not have a user"),  # pragma: allowlist secret
        ("ws://127.0.0.1@canary-31337.example", "must not have a user"),
        ("wss://acme.example?canary-31337", "must not have a query"),
        ("file:///etc/canary-31337", "must be wss://"),
        ("gopher://canary-31337.example", "must begin with wss://"),
        ("wss://", "must be wss://"),
        ("acme.example", "must be wss://"),
        ("wss://acme.example:canary-31337", "must be a valid URL"),
    ],
)
def test_only_servers_with_tls_or_on_loopback_are_livekit_servers(url: str, reason: str) -> None:
    text = a_client("acme", url=url)

    message = refusal(text)

    assert f"line {line_of(text, 'livekit_url')}, clients.acme.livekit_url: " in message
    assert reason in message


@pytest.mark.parametrize("url", ["ws://127.0.0.1:7880", "ws://[::1]:7880", "http://localhost:7880"])
def test_in_development_livekit_is_on_loopback(url: str) -> None:
    assert clients_of(a_client("acme", url=url))[0].livekit.url == url


def test_a_literal_livekit_secret_is_refused() -> None:
    text = a_client("acme", secret=CANARY)

    message = refusal(text)

    assert f"line {line_of(text, 'livekit_api_secret')}, clients.acme.livekit_api_secret" in message
    assert "a secret does not stand in this file itself" in message
    assert CANARY not in message


def test_every_mistake_is_told_at_once_each_with_its_line() -> None:
    text = a_client("acme", a_key("acme", "one", kind="public"), agents="[]") + a_client("BAD")

    message = refusal(text)

    assert f"line {line_of(text, 'agent_names')}, clients.acme.agent_names: " in message
    assert f"line {line_of(text, 'kind')}, clients.acme.keys.0.kind: " in message
    assert f"line {line_of(text, '[clients.BAD]')}, clients.BAD: " in message


def test_a_field_that_is_missing_is_told_with_the_line_of_its_client() -> None:
    text = a_client("globex") + '\n[clients.acme]\nlivekit_url = "wss://acme.example"\n'

    line = line_of(text, "[clients.acme]")
    assert f"line {line}, clients.acme.livekit_api_secret: Field required" in refusal(text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[clients]\n"])
def test_a_file_without_a_client_is_one_that_was_cut_off(text: str) -> None:
    assert "clients" in refusal(text)


@pytest.mark.parametrize(
    ("text", "line"), [("[clients.acme\n", 1), (a_client("a") + a_client("a"), 9)]
)
def test_what_is_no_toml_is_told_with_its_line(text: str, line: int) -> None:
    assert f"(at line {line}, column" in refusal(text)


def test_a_third_live_key_of_a_kind_is_refused_and_a_disabled_one_does_not_count() -> None:
    two = [a_key("acme", "one"), a_key("acme", "two")]
    others = [
        a_key("acme", "off", more="disabled = true"),
        a_key("acme", "pub", kind="publishable"),
    ]
    clients_of(a_client("acme", *two, *others))
    text = a_client("acme", *two, *others, a_key("acme", "three"))

    message = refusal(text)

    assert f"line {line_of(text, 'three') - 1}, clients.acme.keys.4: more than 2 live" in message


def test_a_key_belongs_to_one_client() -> None:
    text = a_client("acme", a_key("acme", "one")) + a_client("globex", a_key("globex", "one"))

    message = refusal(text)

    assert "clients.globex.keys.0.sha256: client 'acme' has that key already" in message
    assert digest("one") not in message


def test_clients_on_one_livekit_server_could_enter_each_others_rooms() -> None:
    server = "wss://shared.example"
    text = a_client("acme", url=server) + a_client("globex", url="https://shared.example:443/")

    assert "clients.globex.livekit_url: client 'acme' has that LiveKit server" in refusal(text)

    both = "shared_livekit = true"
    one_customer = a_client("acme", url=server, more=both) + a_client("b", url=server, more=both)
    assert len(clients_of(one_customer)) == 2
    only_one = a_client("acme", url=server) + a_client("b", url=server, more=both)
    assert "clients.b.livekit_url" in refusal(only_one)


@pytest.mark.parametrize(
    "url",
    [
        "wss://ACME.example",
        "wss://acme.example.",
        "wss://acme.example:443/x",
        "https://acme.example",
    ],
)
def test_a_livekit_server_is_the_same_by_whatever_spelling(url: str) -> None:
    text = a_client("acme", url="wss://acme.example") + a_client("globex", url=url)

    assert "client 'acme' has that LiveKit server too" in refusal(text)


def test_the_dots_and_letters_of_other_scripts_are_those_of_dns() -> None:
    text = a_client("acme", url="wss://xn--bcher-kva.example") + a_client(
        "globex", url="wss://b\u00fccher\u3002example\u3002"
    )

    assert "client 'acme' has that LiveKit server too" in refusal(text)


def test_a_file_that_everybody_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clients.toml"
    path.write_text(a_client("acme", secret=f"file:{tmp_path}/secret"))
    secret = tmp_path / "secret"
    secret.write_text(LIVEKIT_SECRET)
    for file, said in (
        (path, f"USHER_CLIENTS_FILE: {path} can be changed by every user"),
        (secret, f"clients.acme.livekit_api_secret: {secret} can be changed by every user"),
    ):
        file.chmod(0o646)
        with pytest.raises(ConfigurationError) as caught:
            read(path, files=set())
        assert said in str(caught.value)
        assert f"(mode 0646); take that away with chmod o-w {file}" in str(caught.value)
        file.chmod(0o600)

    assert read(path, files=set())[0].livekit.api_secret == LIVEKIT_SECRET


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o440, False), (0o600, False)])
def test_a_secret_that_everybody_can_read_is_told(
    mode: int, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(LIVEKIT_SECRET)
    secret.chmod(mode)

    clients_of(a_client(secret=f"file:{secret}"))

    lines = [vars(line) for line in caplog.records]
    assert [(line["file"], line["mode"]) for line in lines] == [(str(secret), "0644")] * told
    assert (f"can read the secret in {secret} (mode 0644)" in caplog.text) is told
    assert LIVEKIT_SECRET not in caplog.text


def test_clients_with_one_livekit_secret_could_make_each_others_tokens() -> None:
    secret = "env:TEST_LIVEKIT_SECRET"
    text = a_client("acme", secret=secret) + a_client("globex", secret=secret)

    message = refusal(text)

    assert "clients.globex.livekit_api_secret: client 'acme' has that LiveKit secret" in message
    assert LIVEKIT_SECRET not in message
    both = "shared_livekit = true"
    one_customer = (a_client(name, secret=secret, more=both) for name in ("acme", "globex"))
    assert len(clients_of("".join(one_customer))) == 2
    # The command does not look secrets up, but the same place is the same secret.
    with pytest.raises(ConfigurationError, match="has that LiveKit secret"):
        parse(text, name="", around=Surroundings(environ={}, resolve=False))
    assert len(clients_of(a_client("acme") + a_client("globex"))) == 2


def test_in_development_webhooks_may_go_to_this_machine() -> None:
    text = a_client(more='webhook_url = "http://127.0.0.1:8000/hook"')

    assert "must begin with https://" in refusal(text)
    around = Surroundings(environ=ENVIRON, allow_private=True)
    assert parse(text, name="clients.toml", around=around)[0].webhook_url.startswith("http://127")


def test_a_key_opens_its_own_client_whatever_its_place_and_a_disabled_one_nothing() -> None:
    found = clients_of(
        a_client("acme", a_key("acme", "one"), a_key("acme", "off", more="disabled = true"))
        + a_client("globex", a_key("globex", "two"), a_key("globex", "pub", kind="publishable"))
    )
    registry = ClientRegistry(clients=found)
    acme, globex = found

    assert registry.by_key("one") == (acme, acme.keys[0])
    assert registry.by_key("two") == (globex, globex.keys[0])
    assert registry.by_key("pub") == (globex, globex.keys[1])
    assert [registry.by_key(key) for key in ("off", "", "nobody's", digest("one"), "\ud800")] == [
        None
    ] * 5
