"""Who may read `/metrics`, and does it say what was counted, in Prometheus's own words?

Prometheus's own parser reads it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import DispatchRef
from dispatcher.ledger import dispatches, keys, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.clientsfile import Open, a_client, a_key, opening
from tests.support.ownredis import OwnRedis
from tests.support.values import AGENT_NAME, a_server, new_dispatch
from web.state.abuse_limits import MAX_WRONG_PASSWORDS

PASSWORD = "a-password-of-20-chars"
CLIENTS = a_client("acme", a_key("acme", "acme-key")) + a_client(
    "globex", a_key("globex", "globex-key")
)
REF = DispatchRef(
    dispatch_id="dsp_1", client_id="acme", room_name="room-1", agent_name=AGENT_NAME, generation=1
)
OPERATOR = {"USHER_OPERATOR_AUTH": f"operator:{PASSWORD}", "USHER_METRICS_LOCAL": "true"}


@pytest.fixture
def open_with(open_with: Open) -> Open:
    """Opens the application, the operator named; keyword arguments are environment variables."""
    return lambda **environ: open_with(CLIENTS, **(OPERATOR | environ))


@pytest.fixture
def open_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the application with whatever Redis the other fixtures have chosen."""
    yield from opening(tmp_path, monkeypatch)


def samples(client: FlaskClient) -> dict[tuple[Any, ...], float]:
    """Every sample of the page, by its name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_was_counted_is_there_in_prometheuss_words(open_with: Open, store: Ledger) -> None:
    client = open_with()
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    store.run(dispatches.advance(Advance(REF, state_machine.DISPATCH_STARTED)))
    in_room = {"joined_at_ms": "1", "time_to_join_ms": "420"}
    store.run(dispatches.advance(Advance(REF, state_machine.JOINED, fields=in_room)))
    store.run(reports.report_agent_server(a_server(), ttl_s=60))

    found = samples(client)

    acme, globex = ("client", "acme"), ("client", "globex")
    assert found["usher_up",] == 1
    assert found["usher_dispatches_total", acme] == 1
    assert found["usher_dispatches_total", globex] == 0
    assert found["usher_sessions_joined_total", acme] == found["usher_joins_total", acme] == 1
    assert found["usher_sessions_failed_total", acme] == 0
    assert found["usher_sessions_lost_total", acme] == 0
    assert found["usher_sessions", acme, ("state", "joined")] == 1
    assert found["usher_sessions", acme, ("state", "queued")] == 0
    time_to_join = "usher_time_to_join_seconds"
    assert found[f"{time_to_join}_bucket", acme, ("le", "0.4")] == 0
    assert found[f"{time_to_join}_bucket", acme, ("le", "0.5")] == 1
    assert found[f"{time_to_join}_bucket", acme, ("le", "+Inf")] == 1
    assert (found[f"{time_to_join}_sum", acme], found[f"{time_to_join}_count", acme]) == (0.42, 1)
    assert found["usher_session_generations_bucket", acme, ("le", "1.0")] == 1
    server = (("agent", AGENT_NAME), ("client", ""), ("container", "box-1"), ("server", "server-1"))
    assert found["usher_agent_server_slots", *server] == 4
    assert found["usher_agent_servers_online", ("agent", AGENT_NAME), ("client", "")] == 1
    assert found["usher_worker_up", ("worker", "dispatch")] == 0
    assert found["usher_livekit_up", acme] == 0


def test_every_label_is_escaped(open_with: Open, store: Ledger) -> None:
    client = open_with()
    awkward = 'a "box"\\with\na new line, {braces} and ü'
    key = keys.agent_metrics("acme", awkward, AGENT_NAME)
    one = AgentCounts(key=key, increments={"rejects:full": 3})
    store.run(reports.count("server-1", 1, [one]))

    labels = (("agent", AGENT_NAME), ("client", "acme"), ("container", awkward))
    assert samples(client)["usher_agent_requests_total", *labels] == 3


def test_openmetrics_is_spoken_to_who_asks_for_it(open_with: Open) -> None:
    answer = open_with().get("/metrics", headers={"Accept": "application/openmetrics-text"})

    assert answer.content_type.startswith("application/openmetrics-text")
    families = {family.name for family in openmetrics.text_string_to_metric_families(answer.text)}
    assert {"usher_dispatches", "usher_up", "usher_http_request_seconds"} <= families


def test_answers_are_timed_by_rule_and_not_by_what_callers_make_up(open_with: Open) -> None:
    client = open_with()
    before = samples(client)  # of this process, whose other tests are counted as well
    client.get("/healthz")
    client.get("/api/v1/dispatches/dsp_of_somebody")
    client.get("/no/such/page")
    client.open("/healthz", method="BREW")
    headers = {"Authorization": "Bearer acme-key", "Idempotency-Key": "one"}
    for room in ("room-1", "another"):  # the second is made as a 200, and is a 409
        client.post("/api/v1/dispatches", headers=headers, json={"room_name": room})

    after = samples(client)

    def more(method: str, route: str, status: int) -> float:
        labels = (("method", method), ("route", route), ("status", str(status)))
        name = ("usher_http_request_seconds_count", *labels)
        return after[name] - before.get(name, 0)

    assert more("GET", "/healthz", 200) == 1
    assert more("GET", "/api/v1/dispatches/<dispatch_id>", 401) == 1
    assert more("GET", "none", 404) == 1
    assert more("other", "none", 405) == 1
    assert more("GET", "/metrics", 200) == 1
    assert more("POST", "/api/v1/dispatches", 200) == 1
    assert more("POST", "/api/v1/dispatches", 409) == 1
    assert "somebody" not in str(after)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"REMOTE_ADDR": "192.0.2.1"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_HOST": "rebound.example:8080"},
    ],
)
def test_from_elsewhere_only_the_operator_may_read(
    elsewhere: dict[str, str], open_with: Open
) -> None:
    client = open_with()
    asked: dict[str, Any] = {"environ_overrides": elsewhere}

    refused = client.get("/metrics", **asked)
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert "USHER_OPERATOR_AUTH" in refused.json["detail"]
    assert client.get("/metrics", auth=("operator", "wrong"), **asked).status_code == 401
    assert client.get("/metrics", auth=("other", PASSWORD), **asked).status_code == 401
    for wrong in ("Bearer wrong", "Bearer acme-key", "Basic %%%", "Basic", "Digest x"):
        headers = {"Authorization": wrong}
        assert client.get("/metrics", headers=headers, **asked).status_code == 401, wrong

    assert client.get("/metrics", auth=("operator", PASSWORD), **asked).status_code == 200
    bearer = {"Authorization": f"Bearer {PASSWORD}"}
    assert client.get("/metrics", headers=bearer, **asked).status_code == 200


def test_without_an_operator_nobody_from_elsewhere_may(open_with: Open) -> None:
    client = open_with(USHER_OPERATOR_AUTH="")
    asked: dict[str, Any] = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.1"}}

    for auth in (None, ("", ""), ("operator", PASSWORD)):
        refused = client.get("/metrics", auth=auth, **asked)
        assert refused.status_code == 401
        assert "set USHER_OPERATOR_AUTH=<user>:<password>" in refused.json["detail"]
    assert client.get("/metrics").status_code == 200


def test_on_this_machine_it_is_open_only_where_the_operator_says_so(open_with: Open) -> None:
    # A proxy here whose requests say nothing of it looks just like this caller.
    client = open_with(USHER_METRICS_LOCAL="false")

    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", auth=("operator", PASSWORD)).status_code == 200
    client = open_with(USHER_METRICS_LOCAL="false", USHER_OPERATOR_AUTH="")
    assert client.get("/metrics").status_code == 401


def test_whoever_guesses_is_told_to_wait(open_with: Open) -> None:
    client = open_with()
    asked: dict[str, Any] = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.1"}}

    guesses = [
        client.get("/metrics", auth=("operator", f"guess-{n}"), **asked).status_code
        for n in range(MAX_WRONG_PASSWORDS + 1)
    ]

    assert guesses == [401] * MAX_WRONG_PASSWORDS + [429]
    assert client.get("/metrics", auth=("operator", PASSWORD), **asked).status_code == 429
    elsewhere: dict[str, Any] = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.2"}}
    assert client.get("/metrics", auth=("operator", PASSWORD), **elsewhere).status_code == 200


@pytest.mark.parametrize("redis_is", ["there", "away"])
def test_wrong_passwords_count_at_every_door_and_in_every_process(
    redis_is: str, own_common: CommonSettings, own_redis: OwnRedis, open_apart: Open
) -> None:
    # With Redis away each process can only count its own.
    one, other = open_apart(CLIENTS, **OPERATOR), open_apart(CLIENTS, **OPERATOR)
    if redis_is == "away":
        own_redis.stop()
        other = one
    guess, asked = ("operator", "guess"), {"environ_overrides": {"REMOTE_ADDR": "192.0.2.1"}}
    form = {"user": guess[0], "password": guess[1]}
    seen = []
    for _ in range(MAX_WRONG_PASSWORDS // 2):
        seen.append(one.get("/metrics", auth=guess, **asked).status_code)
        seen.append(other.post("/dashboard/login", data=form, **asked).status_code)

    assert seen == [401] * MAX_WRONG_PASSWORDS
    form["password"] = PASSWORD
    for each in (one, other):
        assert each.post("/dashboard/login", data=form, **asked).status_code == 429
        right = ("operator", PASSWORD)
        refused = each.get("/metrics", auth=right, **asked)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert each.get("/readyz", auth=right, **asked).status_code == 429


def test_a_right_password_is_not_counted(open_with: Open, raw: redis.Redis) -> None:
    client = open_with()
    asked: dict[str, Any] = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.1"}}

    answers = [
        client.get("/metrics", auth=("operator", PASSWORD), **asked).status_code
        for _ in range(2 * MAX_WRONG_PASSWORDS)
    ]

    assert answers == [200] * len(answers)
    assert raw.get("usher:wrong_passwords:192.0.2.1") == "0"
    assert 0 < raw.ttl("usher:wrong_passwords:192.0.2.1") <= 60


def test_who_the_clients_are_is_told_to_the_operator_alone(
    open_with: Open, store: Ledger, raw: redis.Redis
) -> None:
    raw.hset("usher:parked", "dsp_broken", "it was")
    client = open_with()

    anybody = client.get("/readyz").json
    with_a_key = client.get("/readyz", headers={"Authorization": "Bearer acme-key"}).json
    operator = client.get("/readyz", auth=("operator", PASSWORD)).json

    workers = ["worker:dispatch", "worker:verify", "sweeper"]
    assert anybody == {"status": "degraded", "not_ready": [*workers, "livekit", "agent"]}
    assert with_a_key == anybody
    named = ["livekit:acme", "livekit:globex", "agent:helper"]
    assert operator == {
        "status": "degraded",
        "not_ready": [*workers, *named],
        "agents_without_server": ["helper"],
        "parked": ["dsp_broken"],
    }
    assert client.get("/readyz", auth=("operator", "guess")).status_code == 401


def test_where_there_is_one_client_readiness_names_its_parts(
    common: CommonSettings, open_apart: Open
) -> None:
    client = open_apart(a_client("acme", a_key("acme", "acme-key")))

    assert "agent:helper" in client.get("/readyz").json["not_ready"]


def test_without_redis_it_says_so_and_what_the_process_knows_within_a_second(
    own_common: CommonSettings, own_redis: OwnRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("USHER_REDIS_TIMEOUT_S")  # what it is unless set
    for open_ in opening(tmp_path, monkeypatch):
        client = open_(CLIENTS, **OPERATOR)
        samples(client)
        with own_redis.frozen():
            began = time.monotonic()
            hung = samples(client)
            took_s = time.monotonic() - began
        own_redis.stop()
        down = samples(client)
    assert took_s < 1
    for found in (hung, down):
        assert found["usher_up",] == 0
        assert {name[0] for name in found if not name[0].startswith("usher_http")} == {"usher_up"}
        assert any(name[0] == "usher_http_request_seconds_count" for name in found)


CONFIGURE = """
import os, sys
from pathlib import Path
import web.gunicorn_conf as conf
again = conf._metrics_directory()
print(os.environ["PROMETHEUS_MULTIPROC_DIR"], again, os.getpid())
conf.on_exit(None)
"""


# A web that has no client ends before it makes anything.
ONE_CLIENT = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "LIVEKIT_URL": "ws://127.0.0.1:1",
    "LIVEKIT_API_KEY": "a-key",
    "LIVEKIT_API_SECRET": "s" * 32,
    "USHER_API_KEY_SHA256": "0" * 64,
}


def configured(**environ: str) -> tuple[Path, Path, int]:
    """Directory for the web processes' times, the same read again, and the master's pid."""
    ran = subprocess.run(
        [sys.executable, "-c", CONFIGURE],
        env={**os.environ, **ONE_CLIENT, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    one, again, pid = ran.stdout.split()
    return Path(one), Path(again), int(pid)


def test_the_times_are_kept_in_a_directory_of_the_masters_own(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    prefix = f"usher-metrics-{os.getuid()}-"
    of_a_dead, of_a_living = tmp_path / f"{prefix}{2**22 + 1}", tmp_path / f"{prefix}{os.getpid()}"
    others = tmp_path / "somebody-elses"
    for directory in (of_a_dead, of_a_living, others):
        directory.mkdir()
        (directory / "histogram_1.db").write_bytes(b"")

    # Inherited from a master that is being replaced (SIGUSR2): its workers write there still.
    own, again, pid = configured(**environ, PROMETHEUS_MULTIPROC_DIR=str(of_a_living))

    assert own == again == tmp_path / f"{prefix}{pid}"
    assert not own.exists()  # taken away at the end
    assert not of_a_dead.exists()
    assert (of_a_living / "histogram_1.db").exists()
    assert (others / "histogram_1.db").exists()


def test_a_directory_that_is_named_is_emptied_of_what_is_left_in_it(tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.mkdir()
    (named / "histogram_1.db").write_bytes(b"")
    (named / "notes.txt").write_text("kept")

    own, _, _ = configured(PROMETHEUS_MULTIPROC_DIR=str(named))

    assert own == named
    assert [path.name for path in named.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("auth", ["operator", ":", "operator:", f":{PASSWORD}", "operator:short"])
def test_a_weak_credential_is_refused_at_the_start_and_not_repeated(
    auth: str, open_with: Open
) -> None:
    from dispatcher.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=r"USHER_OPERATOR_AUTH: .*16 characters") as said:
        open_with(USHER_OPERATOR_AUTH=auth)
    assert not re.search("short|a-password", str(said.value))


def test_no_key_is_a_label(open_with: Open, raw: redis.Redis) -> None:
    client = open_with()
    client.get("/api/v1/dispatches", headers={"Authorization": "Bearer acme-key"})
    text = client.get("/metrics").text
    assert "acme-key" not in text
    assert PASSWORD not in text
