"""Reports of agent servers, workers and other parts, and the counts that they send."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Final

from dispatcher.clients.worker_settings import Service, WorkerSettings
from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import AgentServerReport, Dispatch
from dispatcher.ledger import dispatches, keys
from dispatcher.ledger.parsing import numbers, of_any_release, pairs
from dispatcher.ledger.step import Step, ms

logger = logging.getLogger(__name__)

# How long a part of Usher counts as at work after its report.
TTL_S: Final = 6.0
SWEEPER: Final = "sweeper"  # the part's name

# Begins the counters of unexpected failures in `keys.LEDGER_METRICS`.
INTERNAL_ERRORS: Final = "internal_errors:"


def worker_part(queue: str) -> str:
    """Return the name under which the workers of a queue report themselves."""
    return f"worker:{queue}"


def livekit_part(client_id: str) -> str:
    """Return the name under which a client's LiveKit server is reported."""
    return f"livekit:{client_id}"


def report_agent_server(report: AgentServerReport, *, ttl_s: float) -> Step[int]:
    """Keep an agent server's report for `ttl_s`; 0 deletes it. The answer is the ledger's clock."""
    tell = report.agent_name if report.free_slots else ""
    args = (ms(ttl_s), tell, report.agent_server_id, json.dumps(asdict(report)))
    return Step("report", (keys.AGENT_SERVERS, keys.WAITING), args, int)


def agent_servers() -> Step[list[AgentServerReport]]:
    """Return every agent server that has reported itself lately."""
    return Step("fresh", (keys.AGENT_SERVERS,), (), _agent_servers)


def _agent_servers(reply: Iterable[str]) -> list[AgentServerReport]:
    return [report for report in map(agent_server, reply) if report is not None]


@lru_cache(maxsize=1000)  # most are read many times before they change
def agent_server(text: str) -> AgentServerReport | None:
    """Return an agent server's report; None, and a line in the log, when it is unreadable."""
    try:
        return of_any_release(AgentServerReport, json.loads(text))
    except (ValueError, TypeError, AttributeError) as error:
        logger.error(
            "an agent server's report cannot be read", extra={"error": str(error), "report": text}
        )
        return None


def read_with_agent_servers(
    dispatch_id: str,
) -> Step[tuple[Dispatch | None, list[AgentServerReport]]]:
    """Return the record without its timeline, and every agent server, in one consistent read."""
    step = dispatches.read(dispatch_id, timeline=False)

    def parse(reply: Sequence[Any]) -> tuple[Dispatch | None, list[AgentServerReport]]:
        *record, servers = reply
        return step.parse(record), _agent_servers(servers)

    return Step(step.script_name, (*step.keys, keys.AGENT_SERVERS), (), parse)


def report_worker(settings: WorkerSettings) -> Step[int]:
    """Keep a worker process's settings for `TTL_S`."""
    args = (ms(TTL_S), "", settings.worker, json.dumps(asdict(settings)))
    return Step("report", (keys.WORKER_SETTINGS,), args, int)


def workers() -> Step[list[WorkerSettings]]:
    """Return the settings of every worker process."""
    return Step("fresh", (keys.WORKER_SETTINGS,), (), _workers)


def _workers(reply: Iterable[str]) -> list[WorkerSettings]:
    found = (each for each in map(_worker, reply) if each is not None)
    return sorted(found, key=lambda each: each.worker)


@lru_cache(maxsize=1000)
def _worker(text: str) -> WorkerSettings | None:
    """Return a worker's settings; None, and a line in the log, when they are unreadable."""
    try:
        fields = json.loads(text)
        fields["services"] = tuple(of_any_release(Service, each) for each in fields["services"])
        fields |= {name: tuple(fields[name]) for name in ("queues", "unfenced")}
        return of_any_release(WorkerSettings, fields)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        logger.error("a worker's settings cannot be read", extra={"error": str(error)})
        return None


def report_alive(name: str, *, ttl_s: float = TTL_S) -> Step[int]:
    """Note that the part `name` is at work; it counts as gone after `ttl_s`."""
    return Step("report", (keys.ALIVE,), (ms(ttl_s), "", name, json.dumps(name)), int)


def begin_sweep(*, pause_s: float) -> Step[bool]:
    """Note that a sweep begins; false if another began less than `pause_s` ago."""
    args = (SWEEPER, json.dumps(SWEEPER), ms(TTL_S), ms(pause_s))
    return Step("begin_sweep", (keys.ALIVE,), args, bool)


def alive() -> Step[frozenset[str]]:
    """Return the names of the parts that are at work."""
    return Step("fresh", (keys.ALIVE,), (), lambda reply: frozenset(map(part, reply)))


def part(text: str) -> str:
    """Return the name of a reported part; an unreadable one matches no known part."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def count(reporter: str, number: int, counts: Sequence[AgentCounts]) -> Step[int]:
    """Add a reporter's numbered batch of counts (from 1), once however often it is sent.

    A batch whose number is not greater than the last one's is a repetition.
    """
    return Step(
        "count",
        (
            keys.AGENT_METRICS_INDEX,
            keys.counted(reporter),
            *(each.key for each in counts),
        ),
        (number, json.dumps([dict(each.increments) for each in counts])),
        int,
    )


def ping() -> Step[int]:
    """Return the ledger's clock in ms since the epoch."""
    return Step("ping", (), (), int)


def probe() -> Step[bool]:
    """Write a key: a Redis that takes no writes still answers reads."""
    return Step("command", (keys.PROBED,), ("SET", 1, "PX", 60_000), bool)


def internal_error(work: str) -> Step[int]:
    """Count an unexpected failure of `work`."""
    args = ("HINCRBY", f"{INTERNAL_ERRORS}{work}", "1")
    return Step("command", (keys.LEDGER_METRICS,), args, int)


def park(dispatch_id: str, reason: str) -> Step[int]:
    """Take a record that no worker can work with off every list; keep its id and the reason."""
    return Step(
        "park",
        (keys.PARKED, keys.record(dispatch_id), keys.DUE, keys.LEASES, keys.WAITING),
        (dispatch_id, reason),
        int,
    )


def parked() -> Step[dict[str, str]]:
    """Return the parked dispatch ids, each with its reason."""
    return Step("command", (keys.PARKED,), ("HGETALL",), pairs)


def forget(dispatch_id: str) -> Step[int]:
    """Take an id without a record off every list."""
    return Step("forget", (keys.DUE, keys.LEASES, keys.WAITING), (dispatch_id,), int)


def backlog(queue: str = keys.DISPATCH_QUEUE) -> Step[int]:
    """Return the length of a queue (Celery keeps a queue as a list of its name)."""
    return Step("command", (queue,), ("LLEN",), int)


def key_used(client_id: str, key_id: str) -> Step[int]:
    """Note that one of a client's API keys is used now, by Redis's clock."""
    return Step("key_used", (keys.key_uses(client_id),), (key_id,), int)


def key_uses(client_id: str) -> Step[dict[str, int]]:
    """Return when each of a client's API keys was last used (ms since the epoch), if it was."""
    return Step("command", (keys.key_uses(client_id),), ("HGETALL",), numbers)


def password_attempt(address: str, *, most: int, within_s: float) -> Step[int]:
    """Begin an attempt at the operator's password from that address; it counts as wrong at first.

    The answer is the ms to wait when `most` have been wrong `within_s`, else 0.
    """
    args = (most, ms(within_s), "begin")
    return Step("attempt", (keys.wrong_passwords(address),), args, int)


def password_right(address: str) -> Step[int]:
    """Take back the count of an attempt that was right."""
    return Step("attempt", (keys.wrong_passwords(address),), ("0", "0", "right"), int)


def open_sessions(client_id: str) -> Step[int]:
    """Return how many dispatches of a client have not ended."""
    return Step("command", (keys.open_sessions(client_id),), ("ZCARD",), int)
