"""The report of the results, for people (Markdown and charts) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report import tables
from bench.report.results import Results
from bench.report.verdicts import verdicts
from bench.stats import ENOUGH_FOR_P99

_HEAD = """# Benchmarks

Made by `make bench`; do not edit. Every figure is of one run of that command on one machine, over
loopback: trust the ratios more than the digits. {form}

How it is measured: all contenders are up during the whole run and use the same LiveKit server and
agent servers of one kind ({agents}); they are measured in turn, each round
beginning with another one. A session begins with its request (for (b): with the person's join) and
has its agent when LiveKit's own log says that the agent is ACTIVE; that is the same clock and the
same observer for everybody, and costs nobody anything. Nobody but the agent joins, except in (b),
where the person's signalling (no media) creates the room; (a), (c), (d) and (e) have it created by
`CreateDispatch`, Usher by `CreateRoom` with the agent, and why is in
[decision 21](decisions/0021-agent-asked-for-with-its-room.md). (g) has (f)'s
processes and agent servers, with [direct placement](direct-placement.md). (c), (d) and (e) do the
same for a session: three tries with waits of 1, 2 and 4 s, each a `CreateDispatch` and a look into
the room every half second for up to five seconds. A p99 is given for {p99} samples or more; ratios
have their 95 % bootstrap interval.
"""


def write_report(
    page: Path,
    results: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Mapping[str, str]],
    *,
    quick: bool,
) -> None:
    """Write the page, its charts and its JSON beside each other."""
    from bench.report import charts  # only `make bench` installs what draws them

    page.parent.mkdir(parents=True, exist_ok=True)
    found = Results(results)
    form = "This is the quick form: few samples, an idea and no more." if quick else ""
    parts = [
        _HEAD.format(form=form, agents=tables.AGENTS, p99=ENOUGH_FOR_P99),
        tables.about(about, found),
        tables.must_hold(verdicts(found)),
    ]
    drawn = charts.draw(page, found)
    for name, section in tables.SECTIONS.items():
        if text := section(found):
            parts.append(text)
            parts += [f"![{title}]({path})\n" for title, path in drawn.get(name, ())]
    page.write_text("\n".join(parts))
    raw = {"about": about, "results": results}
    page.with_suffix(".json").write_text(json.dumps(raw, separators=(",", ":")) + "\n")
