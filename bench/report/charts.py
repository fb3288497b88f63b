"""The report's charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure

from bench.contenders import BY_HTTP, CONTENDERS
from bench.procfiles import Kind
from bench.report.results import Results, exactly_one, last_s, measured
from bench.stats import median

matplotlib.use("Agg")

_COLOURS: Final = dict(
    zip(
        CONTENDERS,
        ("#777777", "#b07aa1", "#e15759", "#f28e2b", "#edc948", "#1f6fb4", "#2ca02c"),
        strict=True,
    )
)


def _title(name: str) -> str:
    return CONTENDERS[name].title.replace("`", "")


def draw(page: Path, results: Results) -> dict[str, list[tuple[str, str]]]:
    """Draw every chart beside the page; by section, each chart's title and file name."""
    drawn: dict[str, list[tuple[str, str]]] = {}
    for section, name, title, chart in _CHARTS:
        figure = chart(results)
        if figure is None:
            continue
        figure.suptitle(title, fontsize=11)
        path = page.with_name(f"{page.stem}-{name}.png")
        # The same figures shall make the same file.
        figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(figure)
        drawn.setdefault(section, []).append((title, path.name))
    return drawn


def _axes(x: str, y: str, width: float = 7.0) -> tuple[Figure, Any]:
    figure, axes = pyplot.subplots(figsize=(width, 3.6))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _join(results: Results) -> Figure | None:
    times = {name: results.time_to_join_s(name) for name in measured(results)}
    return _shares("time to join (s)", times)


def _sound(results: Results) -> Figure | None:
    times = {name: [one["heard_ms"] / 1000 for one in results.sounds(name)] for name in CONTENDERS}
    return _shares("click to first sound (s)", times)


def _shares(x: str, times: Mapping[str, Sequence[float]]) -> Figure | None:
    """Draw how many of each contender's sessions took no longer than so long."""
    if not any(times.values()):
        return None
    figure, axes = _axes(x, "share of sessions")
    for name, own in times.items():
        if own:
            shares = [(number + 1) / len(own) for number in range(len(own))]
            axes.step(sorted(own), shares, where="post", label=_title(name), color=_COLOURS[name])
    axes.legend(fontsize=8, frameon=False)
    return figure


def _last(kind: Kind) -> Callable[[Results], Figure | None]:
    def chart(results: Results) -> Figure | None:
        sizes = results.burst_sizes(kind)
        if not sizes:
            return None
        figure, axes = _axes("sessions at once", "last agent that came (s)")
        for name in CONTENDERS:
            points = [
                (count, median(found))
                for count in sizes
                if (found := [s for b in results.bursts(kind, count, name) if (s := last_s(b))])
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True), "o-", label=_title(name), color=_COLOURS[name]
                )
        axes.legend(fontsize=8, frameon=False)
        axes.set_ylim(bottom=0)
        return figure

    return chart


def _share(kind: Kind) -> Callable[[Results], Figure | None]:
    def chart(results: Results) -> Figure | None:
        sizes = results.burst_sizes(kind)
        if not sizes:
            return None
        figure, axes = _axes("sessions at once", "exactly one agent (%)", width=8.0)
        names = [name for name in CONTENDERS if results.bursts(kind, sizes[0], name)]
        width = 0.8 / max(1, len(names))
        for number, name in enumerate(names):
            shares = []
            for count in sizes:
                bursts = results.bursts(kind, count, name)
                total = count * len(bursts)
                shares.append(100 * sum(map(exactly_one, bursts)) / total if total else 0)
            places = [place + number * width for place in range(len(sizes))]
            axes.bar(places, shares, width, label=_title(name), color=_COLOURS[name])
        axes.set_xticks([place + 0.4 - width / 2 for place in range(len(sizes))], sizes)
        axes.legend(
            fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2)
        )
        return figure

    return chart


def _http(results: Results) -> Figure | None:
    rates = {
        name: median([one["per_core_s"] for one in stretches])
        for name in BY_HTTP
        if (stretches := results.http(name))
    }
    if not rates:
        return None
    figure, axes = _axes("", "requests/s per core of web")
    axes.bar([_title(n) for n in rates], list(rates.values()), color=[_COLOURS[n] for n in rates])
    return figure


def _lag(results: Results) -> Figure | None:
    found = {name: lags for name in BY_HTTP if (lags := results.lags_ms(name))}
    if not found:
        return None
    figure, axes = _axes("", "ACTIVE to noticed (ms)")
    axes.boxplot(list(found.values()), tick_labels=[_title(n) for n in found], whis=(1, 99))
    return figure


def _backlog(results: Results) -> Figure | None:
    found = results.backlog()
    if found is None:
        return None
    figure, axes = _axes("time since the workers were started (s)", "dispatched")
    axes.plot(*zip(*found["progress"], strict=True), color=_COLOURS["usher"])
    return figure


def _live(results: Results) -> Figure | None:
    found = {
        level: cost["cpu_ms_per_session"]
        for key, cost in results.of("live").items()
        for level, name in [key.split("/")]
        if name == "usher"
    }
    levels = sorted(found, key=int)
    if not levels:
        return None
    figure, axes = _axes("live sessions", "CPU for one more session (ms)")
    bottom = [0.0] * len(levels)
    for program in ("web", "dispatch", "verify", "redis", "flower", "beat"):
        costs = [max(0.0, found[level].get(program, 0)) for level in levels]
        axes.bar(levels, costs, 0.6, bottom=bottom, label=program)
        bottom = [low + cost for low, cost in zip(bottom, costs, strict=True)]
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


_CHARTS: Final = (
    ("join", "join", "Time to join, one at a time", _join),
    ("sound", "sound", "From the click to the first sound", _sound),
    ("burst", "burst-last", "Bursts: when the last agent has come", _last(Kind.SLOTS)),
    ("burst", "burst-share", "Bursts: sessions with exactly one agent", _share(Kind.SLOTS)),
    ("burst", "cpu-last", "Bursts with CPU load: when the last agent has come", _last(Kind.CPU)),
    ("burst", "cpu-share", "Bursts with CPU load: exactly one agent", _share(Kind.CPU)),
    ("lag", "lag", "Detection lag (box: quartiles, whiskers: 1 % and 99 %)", _lag),
    ("http", "http", "Requests per core of web", _http),
    ("waiting", "backlog", "A backlog drains", _backlog),
    ("live", "live", "What one more session costs", _live),
)
