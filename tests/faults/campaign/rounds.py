"""One round: a stack of its own, people, faults, and a last look at everything."""

from __future__ import annotations

import asyncio
import tempfile
import time
import traceback
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.stacks import RunningStack, running_stack

from .agent import JOIN_LOG
from .deployment import Deployment, prepare
from .evidence import Evidence, read_evidence
from .faults import DRAIN_S, Faults
from .journal import Journal, read_journal
from .plan import Fault, Plan, Visit
from .processes import note_processes
from .trouble import Trouble
from .visitors import Street
from .watching import Watch, list_agents, livekit_api

_HERE = Path(__file__).parent
_TERMINAL = frozenset({"ended", "failed", "cancelled"})
_LAG_WORTH_NOTING_S = 0.1
_JOURNALS = ("driver.jsonl", "agents.jsonl", "neighbours.jsonl")
ABANDON_AFTER_S, DESERTED_AFTER_S = 8, 15  # a round shall not take longer than need be


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Which stack a round runs on, and how long its end may take."""

    procfile: Path = _HERE / "Procfile"
    environ: Mapping[str, str] = field(default_factory=dict)
    settle_s: float = 45.0


def run_round(plan: Plan, directory: Path, setting: Setting) -> None:
    """Write what happens into the journals in `directory`."""
    for name in _JOURNALS:
        (directory / name).unlink(missing_ok=True)  # of a round that was interrupted
    environ = {
        "USHER_AGENT_ENTRYPOINT": "tests.faults.campaign.agent:entrypoint",
        "USHER_ABANDON_AFTER_S": str(ABANDON_AFTER_S),
        "USHER_DESERTED_AFTER_S": str(DESERTED_AFTER_S),
        "USHER_AGENT_DRAIN_S": str(DRAIN_S),
        JOIN_LOG: str((directory / "agents.jsonl").resolve()),
    }
    # The path of supervisord's socket must be short.
    with tempfile.TemporaryDirectory(prefix="usher-", dir="/tmp") as run_dir:
        deployment = prepare(Path(run_dir), setting.procfile)
        try:
            with running_stack(
                Path(run_dir) / "run",
                environ={**environ, **deployment.environ, **setting.environ},
                procfile=deployment.procfile,
            ) as stack:
                asyncio.run(_drive(plan, directory, stack, deployment, setting.settle_s))
        finally:
            _keep_logs(Path(run_dir) / "run" / "log", directory / "log")


def evidence_of(directory: Path) -> Evidence:
    """What the journals of a round say."""
    return read_evidence(*(read_journal(directory / name) for name in _JOURNALS))


def _keep_logs(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in source.glob("*.log*"):
        (target / path.name).write_bytes(path.read_bytes())


async def _drive(
    plan: Plan, directory: Path, whole: RunningStack, deployment: Deployment, settle_s: float
) -> None:
    stack = deployment.of_the_people(whole)
    journal = Journal(directory / "driver.jsonl")
    trouble = Trouble(stack, deployment, journal, directory / "neighbours.jsonl")
    watch = Watch(stack, journal, directory / "agents.jsonl")
    background = [asyncio.create_task(watch.run()), asyncio.create_task(note_lag(journal))]
    async with Street(stack, journal, watch) as street:
        faults = Faults(stack, journal, watch, street.rooms_with_a_session, trouble)
        began = time.monotonic()
        journal.write("begins", sessions=len(plan.visits))

        async def visit(one: Visit) -> None:
            await asyncio.sleep(max(0.0, began + one.at_s - time.monotonic()))
            await street.visit(one)

        async def inject(one: Fault) -> None:
            await asyncio.sleep(max(0.0, began + one.at_s - time.monotonic()))
            await faults.inject(one)

        work = [visit(one) for one in plan.visits] + [inject(one) for one in plan.faults]
        await asyncio.gather(*map(_told, work))
        await asyncio.gather(settle(street, journal, directory, settle_s), trouble.settle(settle_s))
        await last_look(stack, journal, plan)
        await note_processes(stack, journal)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    journal.write("ends")
    journal.close()


async def _told(work: Awaitable[None]) -> None:
    """Do it; what it raises is told at once, since LiveKit's SDK ends a process whose event loop
    has left it, before Python can say why."""
    try:
        await work
    except Exception:
        traceback.print_exc()
        raise


async def settle(street: Street, journal: Journal, directory: Path, settle_s: float) -> None:
    """Wait until the product says of every accepted dispatch how it ended; write that down."""
    left = {
        event["dispatch_id"]
        for event in read_journal(directory / "driver.jsonl")
        if event["event"] == "answered" and event["dispatch_id"]
    }
    give_up_at = time.monotonic() + settle_s
    while left:
        last_call = time.monotonic() > give_up_at
        for dispatch_id in sorted(left):
            status, body = await street.record(dispatch_id)
            if last_call or (status == 200 and body["state"] in _TERMINAL):
                journal.write("record", dispatch_id=dispatch_id, status=status, body=body)
                left.discard(dispatch_id)
        await asyncio.sleep(0.5)


async def last_look(stack: RunningStack, journal: Journal, plan: Plan) -> None:
    async with livekit_api(stack) as livekit:
        for visit in plan.visits:
            journal.write("final", room=visit.room, agents=await list_agents(livekit, visit.room))


async def note_lag(journal: Journal) -> None:
    """The driver's own delays, which its clients would blame on the web."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.05)
        lag_s = time.perf_counter() - before - 0.05
        if lag_s > _LAG_WORTH_NOTING_S:
            journal.write("lag", lag_s=round(lag_s, 3))
