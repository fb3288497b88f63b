"""The contenders of the benchmark.

Each is written and called as its users would do it (`bench/caller.py`). (c), (d) and (e) run the
same task for a session, in `task.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

AGENT_NAME: Final = "bench-usher"  # of Usher's agent servers


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to get an agent into a room.

    Attributes:
        asked_by: how a session is asked for: by LiveKit's API, by a person's join, or by HTTP.
        agent: which of the two agent servers it uses.
        web: the program that answers HTTP.
        workers: its other programs, for the CPU time.
        redis: its own Redis.
        told_by: the program whose log says when it has noticed that the agent has joined; Usher's
            record says that itself.
        placement: of Usher's client, who gives its jobs to agent servers.
    """

    name: str
    title: str
    asked_by: Literal["direct", "token", "http"]
    agent: Literal["plain", "usher"] = "plain"
    web: str = ""
    workers: tuple[str, ...] = ()
    redis: str = ""
    told_by: str = ""
    placement: Literal["", "livekit", "direct"] = ""


DIRECT: Final = Contender(name="direct", title="(a) direct `CreateDispatch`", asked_by="direct")
TOKEN: Final = Contender(name="token", title="(b) token dispatch", asked_by="token")
BACKGROUND: Final = Contender(
    name="background",
    title="(c) BackgroundTasks",
    asked_by="http",
    web="background",
    told_by="background",
)
TASKIQ: Final = Contender(
    name="taskiq",
    title="(d) taskiq",
    asked_by="http",
    web="taskiqweb",
    workers=("taskiq",),
    redis="taskiqredis",
    told_by="taskiq",
)
DRAMATIQ: Final = Contender(
    name="dramatiq",
    title="(e) dramatiq",
    asked_by="http",
    web="dramatiqweb",
    workers=("dramatiq",),
    redis="dramatiqredis",
    told_by="dramatiq",
)
USHER: Final = Contender(
    name="usher",
    title="(f) Usher",
    asked_by="http",
    agent="usher",
    web="web",
    workers=("dispatch", "verify", "beat", "flower"),
    redis="redis",
    placement="livekit",
)
# The same processes and agent servers as (f): another placement of their client.
USHER_DIRECT: Final = replace(
    USHER, name="usher-direct", title="(g) Usher, direct placement", placement="direct"
)
CONTENDERS: Final = {
    contender.name: contender
    for contender in (DIRECT, TOKEN, BACKGROUND, TASKIQ, DRAMATIQ, USHER, USHER_DIRECT)
}
USHERS: Final = tuple(name for name, one in CONTENDERS.items() if one.placement)
BY_HTTP: Final = tuple(name for name, one in CONTENDERS.items() if one.asked_by == "http")
OWN_WEB: Final = tuple(name for name in BY_HTTP if name != USHER_DIRECT.name)  # (g) has (f)'s
