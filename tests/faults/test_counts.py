"""Does every counter say what has happened, going by LiveKit and by the agent servers' own logs?

Three agent servers in three containers, with a program that refuses some rooms on purpose. What
LiveKit has done is read from LiveKit's own log (its webhooks, its participants, its assignments)
and from its lists, what agent servers have answered from their logs.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from livekit import api
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.domain.metrics import AgentFigures, ClientFigures, Figures, Window
from dispatcher.domain.models import State
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.statistics import NOT_OURS, figures, health
from tests.acceptance.session import run_step
from tests.support.stacks import RunningStack, running_stack

from .stacks import Caller, active_agents, kill, livekit_api, wait_for, write_procfile

pytestmark = pytest.mark.outage

BOXES = {"agent": "box-1", "agent2": "box-2", "agent3": "box-3"}
DEADLINE_S = 8
LONG_DEADLINE_S = 30
STILL_S = 1.0
# What agent servers and the other parts say of this moment.
NOT_COUNTED = "agent_server|silent|overdue|waiting|queue_length|worker|livekit|up"
_AGENT = "agent-AJ_"


def program(container: str, port: str) -> str:
    exports = f"USHER_AGENT_CONTAINER={container} USHER_AGENT_PORT={port}"
    return f"export {exports} && exec python -m tests.faults.picky"


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """A stack with three agent servers, whose logs can be read by programs."""
    folder = tmp_path_factory.mktemp("counts")
    lines = {"agent": program("box-1", "$USHER_AGENT_PORT")}
    lines |= {name: program(box, "0") for name, box in BOXES.items() if name != "agent"}
    environ = {
        "USHER_LOG_FORMAT": "json",
        "USHER_AGENT_EXECUTOR": "thread",
        "USHER_AGENT_SLOTS": "40",
        "USHER_DEADLINE_S": str(getattr(request, "param", DEADLINE_S)),
    }
    procfile = write_procfile(folder / "Procfile", lines)
    with running_stack(folder / "run", environ=environ, procfile=procfile) as running:
        wait_for("three agent servers", lambda: len(servers(running)) == 3 or None, within_s=60)
        yield running


def servers(stack: RunningStack) -> list[str]:
    return [each.container for each in run_step(stack, health()).agent_servers if each.online]


def answers(stack: RunningStack) -> bool:
    """True when Redis does."""
    with suppress(LedgerUnavailable):
        return run_step(stack, reports.ping()) > 0
    return False


def counted(stack: RunningStack) -> tuple[Figures, ClientFigures]:
    found = run_step(stack, figures(Window.ALL, [stack.usher_client_id, NOT_OURS]))
    (client,) = found.clients
    return found, client


@pytest.fixture
def sessions(stack: RunningStack) -> Iterator[Sessions]:
    opened = Sessions(stack)
    yield opened
    opened.close()


class Sessions:
    """What was asked for, and how each of it stands."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self._caller = Caller(stack)
        self.rooms: dict[str, str] = {}  # dispatch id -> room

    def ask(self, count: int, kind: str) -> None:
        """So many at once; one that a killed process has not answered is asked for again."""

        def one(number: int) -> tuple[str, str]:
            room = f"{kind}-{len(self.rooms)}-{number}"
            answers: list[dict[str, Any]] = []

            def post() -> bool | None:
                with suppress(httpx.TransportError):
                    answers.append(self._caller.post(room_name=room))
                return bool(answers) or None

            wait_for(f"an answer for {room}", post, within_s=30)
            return answers[0]["dispatch_id"], room

        with ThreadPoolExecutor(8) as pool:
            self.rooms |= dict(pool.map(one, range(count)))

    def settle(self) -> dict[str, dict[str, Any]]:
        """The records, once each has joined or failed, and everybody has said what there is to say.

        Which of them fail is not asked here: on a busy machine a session may.
        """

        def look() -> dict[str, dict[str, Any]] | None:
            try:
                found = {each: self._caller.record(each) for each in self.rooms}
            except (AssertionError, httpx.TransportError):
                return None  # Redis or the web is coming up again
            settled = all(record["state"] in ("joined", "failed") for record in found.values())
            return found if settled else None

        def at_rest() -> bool | None:
            records = look()
            if records is None or servers(self.stack) == []:
                return None
            joined = [r["room_name"] for r in records.values() if r["state"] == "joined"]
            found, client = counted(self.stack)
            said = sum(each.joins for each in found.agents)
            listed = [agent for agents in listing(self.stack).values() for agent in agents]
            told = said == len(of_livekit(self.stack)["active"])
            return (told and client.states[State.JOINED] == len(joined) == len(listed)) or None

        wait_for("the ends of all sessions", look, within_s=LONG_DEADLINE_S + 60)

        def still() -> bool | None:
            # LiveKit may offer the job of a session that has failed to one more agent server.
            before = samples(self.stack)
            time.sleep(STILL_S)
            return samples(self.stack) == before or None

        with suppress(AssertionError):  # then `check` says what is wrong
            wait_for("everybody at rest", at_rest, within_s=30)
            wait_for("no more to count", still, within_s=20)
        records = look()
        assert records is not None
        assert any(record["state"] == "joined" for record in records.values())
        return records

    def close(self) -> None:
        self._caller.http.close()


def of_log(stack: RunningStack, name: str) -> Counter[str]:
    """How a program has answered LiveKit, by its own log."""
    answers: Counter[str] = Counter()
    for line in stack.log(name).splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if entry.get("event") in ("job accepted", "job rejected"):
                answers[f"{entry['decision']}s:{entry['reason']}"] += 1
    return answers


def of_figures(agent: AgentFigures) -> Counter[str]:
    accepts = {f"accepts:{reason}": count for reason, count in agent.accept_reasons.items()}
    rejects = {f"rejects:{reason}": count for reason, count in agent.reject_reasons.items()}
    return Counter(accepts | rejects)


def of_livekit(stack: RunningStack) -> dict[str, set[str]]:
    """What LiveKit has done, by its own log: jobs assigned, agents in a room, webhooks sent."""
    found: dict[str, set[str]] = {"assigned": set(), "active": set(), "told": set(), "asked": set()}
    for number, line in enumerate(stack.log("livekit").splitlines()):
        if "assigned job to worker" in line:
            found["assigned"].add(re.findall(r'"jobID": "(\w+)"', line)[0])
        elif "participant active" in line and f'"participant": "{_AGENT}' in line:
            found["active"].add(re.findall(r'"participantID": "(\w+)"', line)[0])
        elif '"event": "participant_joined"' in line and f'"participant": "{_AGENT}' in line:
            found["told"].add(re.findall(r'"participantID": "(\w+)"', line)[0])
        elif re.search(r"API (RoomService.CreateRoom|AgentDispatchService.CreateDispatch)\b", line):
            found["asked"].add(str(number))
    return found


def lost_agents(client: ClientFigures) -> int:
    return client.agents_lost + client.idle_agents_lost


def events(records: dict[str, dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [e for record in records.values() for e in record["timeline"] if e["event"] == name]


def check(stack: RunningStack, records: dict[str, dict[str, Any]], *, killed: bool) -> None:
    """Compare every counter with what has happened; `killed`: processes were, on the way."""
    found, client = counted(stack)
    livekit = of_livekit(stack)
    agents = {each.container: each for each in found.agents if each.client_id}

    assert client.dispatches == len(records)
    states = Counter(record["state"] for record in records.values())
    assert {state: n for state, n in client.states.items() if n} == {State.JOINED: states["joined"]}
    failed = Counter(r["failure_reason"] for r in records.values() if r["state"] == "failed")
    assert dict(client.failed) == dict(failed)
    assert client.joined == len(events(records, "joined"))
    assert lost_agents(client) == len(events(records, "agent_lost"))

    for name, container in BOXES.items():
        assert of_figures(agents[container]) == of_log(stack, name), container
    accepts = sum(each.accepts - each.assignment_timeouts for each in agents.values())
    assert accepts == len(livekit["assigned"])
    assert sum(each.joins for each in agents.values()) == len(livekit["active"])
    assert client.dispatched == len(events(records, "dispatched"))
    if not killed and len(events(records, "accepted")) == client.joined:
        # Nobody has come too late, and the web was there for every webhook.
        assert client.joined == len(livekit["active"]) == len(livekit["told"])
    if not killed and client.attempts == client.dispatched:
        assert client.attempts == len(livekit["asked"])
    listed = sum(len(each) for each in listing(stack).values())
    assert client.states[State.JOINED] == listed

    times = [int(event["detail"]["time_to_join_ms"]) for event in events(records, "joined")]
    spread = client.histograms["time_to_join"]
    assert (spread.total, spread.sum) == (len(times), sum(times))
    for name in ("generations", "tries"):
        assert client.histograms[name].total == len(records)
    check_exposition(stack, client, agents)


def listing(stack: RunningStack) -> dict[str, list[str]]:
    """The ACTIVE agents of every room that LiveKit lists."""

    async def rooms() -> list[str]:
        async with livekit_api(stack) as livekit:
            listed = await livekit.room.list_rooms(api.ListRoomsRequest())
            return [room.name for room in listed.rooms]

    return active_agents(stack, *asyncio.run(rooms()))


def samples(stack: RunningStack) -> dict[tuple[Any, ...], float]:
    """What Prometheus sees of everything counted, by name and labels; not what passes by itself."""
    page = httpx.get(f"{stack.web_url}/metrics", trust_env=False).text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if re.match(rf"usher_(?!http|.*({NOT_COUNTED}))", sample.name)
    }


def check_exposition(
    stack: RunningStack, client: ClientFigures, agents: dict[str, AgentFigures]
) -> None:
    """The same from every web process, and the same as the ledger says."""
    # Each on a connection of its own, so that both processes answer.
    first, *others = (samples(stack) for _ in range(8))
    for other in others:
        assert other == first
    mine = ("client", client.client_id)
    assert first["usher_dispatches_total", mine] == client.dispatches
    assert first["usher_joins_total", mine] == client.joined
    assert first["usher_time_to_join_seconds_count", mine] == client.joined
    for reason, count in client.failed.items():
        assert first["usher_failures_total", mine, ("reason", reason)] == count
    for agent in agents.values():
        labels = (("agent", agent.agent_name), mine, ("container", agent.container))
        assert first["usher_agent_requests_total", *labels] == agent.requests


@pytest.mark.timeout(150)
def test_every_counter_is_what_livekit_and_the_logs_say(
    stack: RunningStack, sessions: Sessions
) -> None:
    sessions.ask(8, "plain")
    sessions.ask(4, "picky")
    sessions.ask(2, "nobody")
    check(stack, sessions.settle(), killed=False)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stack", [LONG_DEADLINE_S], indirect=True, ids=["patient"])
def test_sixty_sessions_and_the_death_of_any_process_cost_no_count(
    stack: RunningStack, sessions: Sessions
) -> None:
    sessions.ask(28, "plain")
    sessions.ask(8, "picky")
    sessions.ask(4, "nobody")
    check(stack, sessions.settle(), killed=False)

    sessions.ask(10, "plain")
    for name in ("dispatch", "verify", "beat", "web"):
        kill(*stack.pids(name))
    sessions.ask(10, "picky")
    check(stack, sessions.settle(), killed=True)

    kill(*stack.pids("redis"))
    wait_for("Redis", lambda: answers(stack) or None, within_s=30)
    kill(*stack.pids("agent3"))
    wait_for("a loss", lambda: lost_agents(counted(stack)[1]) or None, within_s=60)
    wait_for("three agent servers", lambda: len(set(servers(stack))) == 3 or None, within_s=60)
    records = sessions.settle()
    check(stack, records, killed=True)
    assert events(records, "agent_lost"), "the death of an agent server was not seen"
