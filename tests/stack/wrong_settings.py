"""The table of wrong settings: every setting of every settings class, with a value it cannot have.

A setting without a row here fails `test_wrong_settings.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from flower.options import default_options

from devstack import PROJECT_ROOT
from dispatcher import flower_options, settings
from dispatcher.settings import Settings
from web.settings import ServerSettings, StreamSettings, WebSettings
from worker_agent.settings import AgentSettings

KEY: Final = hashlib.sha256(b"key").hexdigest()
# What every process needs, and no server listens there.
RIGHT: Final = {
    "LIVEKIT_URL": "ws://127.0.0.1:1",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "s" * 32,
    "USHER_API_KEY_SHA256": KEY,
    "FLOWER_BASIC_AUTH": "usher:password",
    "FLOWER_PERSISTENT": "false",
}

_WORKER: Final = (settings.CommonSettings, settings.ClientSettings, settings.WorkerSettings)
# Which settings each line of the Procfile reads.
CLASSES: Final[dict[str, tuple[type[Settings], ...]]] = {
    "web": (
        settings.CommonSettings,
        settings.ClientSettings,
        settings.DispatcherSettings,
        WebSettings,
        StreamSettings,
        ServerSettings,
    ),
    "dispatch": _WORKER,
    "verify": _WORKER,
    "beat": (settings.CommonSettings,),
    "agent": (settings.CommonSettings, AgentSettings),
    "flower": (settings.CommonSettings, flower_options.FlowerSettings),
}
FROM_A_FILE: Final = ("web", "dispatch", "verify")  # where the clients may come from
# The line that is started with each setting of a class by itself. The others are started with all
# of them wrong at once, and have to name each.
ONE_BY_ONE: Final[dict[type[Settings], str]] = {
    settings.CommonSettings: "beat",
    settings.ClientSettings: "dispatch",
    settings.WorkerSettings: "dispatch",
    settings.DispatcherSettings: "dispatch",
    WebSettings: "web",
    StreamSettings: "web",
    ServerSettings: "web",
    AgentSettings: "agent",
    flower_options.FlowerSettings: "flower",
}

# A value that the setting cannot have; the mark must not be repeated.
MARK: Final = "31337"
_NO_NUMBER = f"soon-{MARK}"
_LONG = MARK * 60
WRONG: Final = {
    "REDIS_URL": f"localhost:{MARK}",
    "USHER_REDIS_TIMEOUT_S": "inf",
    "USHER_REDIS_WORKER_TIMEOUT_S": "nan",
    "USHER_LOG_FORMAT": f"xml-{MARK}",
    "USHER_LOG_LEVEL": f"LOUD-{MARK}",
    "USHER_ALIVE_FILE": f"/nonexistent-{MARK}/alive",
    "USHER_RETENTION_S": "31337.5",
    "USHER_ABANDON_AFTER_S": "0",
    "USHER_DESERTED_AFTER_S": _NO_NUMBER,
    "USHER_MAX_BACKLOG": "-31337",
    "USHER_WAKE_GRACE_S": "3133700000",
    "LIVEKIT_URL": f"localhost:{MARK}",
    "LIVEKIT_API_KEY": _LONG,
    "LIVEKIT_API_SECRET": f"short-{MARK}",
    "USHER_CLIENTS_FILE": f"/nonexistent-{MARK}/clients.toml",
    "USHER_CLIENT_ID": f"ACME:{MARK}",
    "USHER_API_KEY_SHA256": MARK,
    "USHER_PUBLISHABLE_KEY_SHA256": MARK,
    "USHER_ORIGINS": f"app.example:{MARK}",
    "USHER_AGENT_NAMES": " , ",
    "USHER_CONTAINER": _LONG,
    "USHER_DEADLINE_S": MARK,
    "USHER_DELEGATE": f"perhaps-{MARK}",
    "USHER_DELEGATE_METADATA": f"perhaps-{MARK}",
    "USHER_WEBHOOK_URL": f"http://receiver.example:{MARK}/",
    "USHER_REQUESTS_PER_MINUTE": "-31337",
    "USHER_MAX_SESSIONS": "-31337",
    "USHER_TRUSTED_PROXIES": "-31337",
    "USHER_OPERATOR_AUTH": f"ann:{MARK}",
    "USHER_METRICS_LOCAL": f"perhaps-{MARK}",
    "USHER_TRUSTED_HOSTS": f"usher.example, https://usher.example:{MARK}",
    "USHER_FLOWER_URL": f"flower.example:{MARK}",
    "USHER_STREAMS": "0",
    "USHER_STREAMS_PER_CLIENT": _NO_NUMBER,
    "USHER_STREAMS_PER_DISPATCH": "0",
    "USHER_LIVEKIT_TIMEOUT_S": _NO_NUMBER,
    "USHER_VERIFY_TIMEOUT_S": _NO_NUMBER,
    "USHER_VERIFY_POLL_S": "-31337",
    "USHER_WAIT_S": "0",
    "USHER_OFFER_TIMEOUT_S": _NO_NUMBER,
    "USHER_PLACEMENT": f"both-{MARK}",
    "USHER_AUTOMATIC_AGENTS": f"perhaps-{MARK}",
    "USHER_MAX_LOSSES": "0",
    "USHER_CLIENT_TASKS": "0",
    "USHER_WEBHOOK_WAITS_S": "5,soon",
    "USHER_WEBHOOK_ALLOW_PRIVATE": f"perhaps-{MARK}",
    "USHER_SWEEP_LIMIT": "-31337",
    "USHER_DISPATCH_CONCURRENCY": _NO_NUMBER,
    "USHER_VERIFY_CONCURRENCY": "0",
    "USHER_INSTANCE": f"two words {MARK}",
    "USHER_WEB_HOST": "",
    "USHER_WEB_PORT": "313370",
    "USHER_WEB_WORKERS": "0",
    "USHER_AGENT_CONTAINER": _LONG,
    "USHER_AGENT_CLIENT_ID": f"ACME:{MARK}",
    "USHER_AGENT_SLOTS": "0",
    "USHER_AGENT_REPORT_S": "0",
    "USHER_SUMMARY_EVERY_S": "-31337",
    "USHER_AGENT_NAME": _LONG,
    "USHER_AGENT_ENTRYPOINT": f"no-colon-{MARK}",
    "USHER_AGENT_EXECUTOR": f"fiber-{MARK}",
    "USHER_AGENT_IDLE_PROCESSES": "-31337",
    "USHER_AGENT_HOST": "203.0.113.7",
    "USHER_AGENT_PORT": "313370",
    "USHER_AGENT_DRAIN_S": "-31337",
    "FLOWER_ADDRESS": "203.0.113.7",
    "FLOWER_PORT": "313370",
    "USHER_FLOWER_PORT": "313370",
    "FLOWER_PERSISTENT": f"perhaps-{MARK}",
    "FLOWER_MAX_TASKS": "0",
    "FLOWER_STATE_SAVE_INTERVAL": _NO_NUMBER,
    "FLOWER_PURGE_OFFLINE_WORKERS": "-31337",
}
# Every text is right, or as good as one can tell before it is used.
ANY_TEXT: Final = {
    "LIVEKIT_AGENT_DEPLOYMENT",
    "USHER_UNFENCED_AGENTS",
    "USHER_WEBHOOK_SECRET",
    "USHER_RUN_DIR",
    "FLOWER_DB",
    "FLOWER_TASKS_COLUMNS",
}
# Those that the settings class takes, and what reads them refuses: each by itself.
JUDGED_LATER: Final = {
    "USHER_ALIVE_FILE",
    "USHER_CLIENTS_FILE",
    "USHER_AGENT_NAMES",
    "USHER_ORIGINS",
    "USHER_WEBHOOK_URL",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One process, started with an environment that is right but for `changes`."""

    process: str
    changes: dict[str, str | None]  # None: the variable is not set
    says: tuple[str, ...]  # parts of the one line

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.changes.items())


def _variables(each: type[Settings]) -> set[str]:
    return {str(field.alias) for field in each.model_fields.values()}


def fields_of(process: str) -> set[str]:
    """The variables that the line of the Procfile reads."""
    listed = {name for each in CLASSES[process] for name in _variables(each)}
    return listed | ({"USHER_CLIENTS_FILE"} if process in FROM_A_FILE else set())


def _flowers_own() -> dict[str, str]:
    """The variables that Flower reads by itself, each with what it cannot read."""
    typed = [
        name
        for name in default_options
        if isinstance(default_options[name], (bool, int, float)) or "buckets" in name
    ]
    names = {f"FLOWER_{name.replace('-', '_').upper()}" for name in typed}
    return dict.fromkeys(names - fields_of("flower"), _NO_NUMBER)


def rows(process: str) -> list[Row]:
    """Each of its settings missing and wrong, and settings that contradict each other."""
    listed = [*_wrong(process), *_missing(process), *_contradictory(process)]
    if process == "flower":
        changes: list[dict[str, str | None]] = [
            {**_flowers_own()},
            {"FLOWER_CONF": f"/nonexistent-{MARK}/flowerconfig.py"},
            *({"FLOWER_BASIC_AUTH": value} for value in (None, "", "usher:")),
        ]
        listed += [Row(process=process, changes=each, says=tuple(each)) for each in changes]
    if process == "agent":
        listed.append(
            Row(
                process=process,
                changes={"USHER_AGENT_ENTRYPOINT": "nowhere.to.be.found:entrypoint"},
                says=("USHER_AGENT_ENTRYPOINT", "PYTHONPATH"),
            )
        )
    return listed


def _wrong(process: str) -> list[Row]:
    listed: list[dict[str, str | None]] = []
    for each in CLASSES[process]:
        names = _variables(each) - ANY_TEXT
        if process in ("web", "flower"):
            names.discard("USHER_ALIVE_FILE")  # they are asked by HTTP
        alone = names if process == ONE_BY_ONE[each] else names & JUDGED_LATER
        listed += [{name: WRONG[name]} for name in sorted(alone)]
        if together := sorted(names - alone):
            listed.append({name: WRONG[name] for name in together})
    if process in FROM_A_FILE:
        listed.append({"USHER_CLIENTS_FILE": WRONG["USHER_CLIENTS_FILE"]})
    return [Row(process=process, changes=changes, says=tuple(changes)) for changes in listed]


def _missing(process: str) -> list[Row]:
    needed = [
        str(field.alias)
        for each in CLASSES[process]
        for field in each.model_fields.values()
        if field.is_required()
    ]
    return [
        Row(process=process, changes={name: None}, says=(f"{name}: is not set",)) for name in needed
    ]


def _contradictory(process: str) -> list[Row]:
    tls = {"REDIS_URL": "redis://127.0.0.1:1/0?ssl_cert_reqs=none"}
    listed: list[tuple[dict[str, str | None], tuple[str, ...]]] = [
        ({**tls}, ("REDIS_URL", "rediss://")),
    ]
    if process in ("web", "dispatch", "verify"):
        listed += [
            (
                {"USHER_VERIFY_POLL_S": "2", "USHER_VERIFY_TIMEOUT_S": "1"},
                ("USHER_VERIFY_POLL_S", "USHER_VERIFY_TIMEOUT_S"),
            ),
            ({"USHER_PUBLISHABLE_KEY_SHA256": KEY}, ("USHER_PUBLISHABLE_KEY_SHA256",)),
        ]
    if process == "web":
        listed.append(
            (
                {"USHER_STREAMS": "5", "USHER_STREAMS_PER_CLIENT": "6"},
                ("USHER_STREAMS_PER_CLIENT", "USHER_STREAMS:"),
            )
        )
    if process in ("dispatch", "verify"):
        listed.append(
            (
                {"USHER_CLIENT_TASKS": "9", f"USHER_{process.upper()}_CONCURRENCY": "8"},
                ("USHER_CLIENT_TASKS", f"USHER_{process.upper()}_CONCURRENCY"),
            )
        )
    if process != "agent":
        other = "redis://127.0.0.1:2/0"
        listed.append(({"CELERY_BROKER_URL": other}, ("CELERY_BROKER_URL", "REDIS_URL")))
        listed.append(({"CELERY_RESULT_BACKEND": other}, ("CELERY_RESULT_BACKEND", "REDIS_URL")))
    if process not in ("agent", "web"):
        listed.append(({"BROKER_URL": other}, ("BROKER_URL", "REDIS_URL")))
    return [Row(process=process, changes=changes, says=says) for changes, says in listed]


def modules_with_settings() -> set[str]:
    """Every module that defines a settings class, by its path."""
    return {
        str(path.relative_to(PROJECT_ROOT))
        for package in ("dispatcher", "web", "worker_agent")
        for path in (PROJECT_ROOT / package).rglob("*.py")
        if "Settings):" in path.read_text() and "class " in path.read_text()
    }
