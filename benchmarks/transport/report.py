"""The tables and the chart in results/, and the short table in docs/transport.md."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.summary import Spread
from benchmarks.transport.payloads import FLOATS, PAYLOADS
from benchmarks.transport.trainer import Figure
from benchmarks.transport.transports import TRANSPORTS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "transport.md"
_OURS = "slots"
_COLOURS = dict(zip(TRANSPORTS, ("#748ffc", "#1971c2", "#868e96", "#2b8a3e", "#d9480f"), strict=True))

Value = Callable[[Figure], float]


@dataclass(frozen=True)
class Run:
    """All figures, round after round.

    Attributes:
        others: how many cores other processes of the machine took meanwhile, in the mean.
    """

    rounds: list[list[Figure]]
    others: float

    def spread(self, transport: str, payload: str, value: Value) -> Spread:
        """One figure of one cell over the rounds."""
        found = Spread.of(value(self._figure(turn, transport, payload)) for turn in range(len(self.rounds)))
        assert found is not None
        return found

    def gain(self, payload: str) -> Spread:
        """How many times as long the fastest other transport of a round took as the slots."""
        found = Spread.of(self._gains(payload))
        assert found is not None
        return found

    def _gains(self, payload: str) -> Iterator[float]:
        for turn in range(len(self.rounds)):
            others = (self._figure(turn, name, payload).seconds for name in TRANSPORTS if name != _OURS)
            yield min(others) / self._figure(turn, _OURS, payload).seconds

    def _figure(self, turn: int, transport: str, payload: str) -> Figure:
        return next(f for f in self.rounds[turn] if f.transport == transport and f.payload == payload)


def gb_per_s(figure: Figure) -> float:
    return figure.nbytes / figure.seconds / 1e9


def wall_us(figure: Figure) -> float:
    return figure.seconds * 1e6


def cpu_us(figure: Figure) -> float:
    return figure.cpu_seconds * 1e6


def write(run: Run) -> list[Path]:
    """Write everything; the paths."""
    paths = [RESULTS / "transport.md", RESULTS / "transport.png", DOCS]
    paths[0].write_text(_results(run))
    _draw(run, paths[1])
    before, after = "<!-- made by python -m benchmarks.transport -->", "<!-- end -->"
    made = f"{before}\n\n{_short(run)}\n\n{after}"
    DOCS.write_text(re.sub(f"{before}.*{after}", lambda _: made, DOCS.read_text(), flags=re.DOTALL))
    return paths


def _results(run: Run) -> str:
    parts = [
        "# How a batch travels from the worker to the trainer",
        _machine(run),
        f"Medians of {len(run.rounds)} alternating rounds, least–most beside them. What is compared, and what it "
        "means: [docs/transport.md](../../docs/transport.md).",
        "## µs a batch, wall\n\n" + _table(run, wall_us),
        "## GB/s\n\n" + _table(run, gb_per_s),
        "## CPU µs a batch, both processes together\n\n" + _table(run, cpu_us),
    ]
    return "\n\n".join(parts) + "\n"


def _machine(run: Run) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "an unknown CPU")
    packages = ", ".join(f"{name} {version(name)}" for name in ("stoker", "tensorflow_cpu", "numpy"))
    return (
        f"One worker, one trainer, {len(os.sched_getaffinity(0))} cores of {cpu}, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {packages}; {time.strftime('%Y-%m-%d')}. "
        f"Other processes took {run.others:.1f} cores meanwhile."
    )


def _table(run: Run, value: Value) -> str:
    rows = [[name, *(_text(run.spread(way, name, value)) for way in TRANSPORTS)] for name in PAYLOADS]
    return _markdown(["batch", *(way.title for way in TRANSPORTS.values())], rows)


def _short(run: Run) -> str:
    """Medians of the wall time only, and how the slots stand to the best of the others."""
    rows = []
    for name in PAYLOADS:
        middles = (_number(run.spread(way, name, wall_us).middle) for way in TRANSPORTS)
        rows.append([name, *middles, _text(run.gain(name))])
    return _markdown(["µs a batch", *(way.title for way in TRANSPORTS.values()), "best other ÷ slots"], rows)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(found: Spread) -> str:
    return f"{_number(found.middle)} ({_number(found.least)}–{_number(found.most)})"


def _number(value: float) -> str:
    """Three digits or so: 1,234  56  7.8  0.912."""
    return f"{value:,.{0 if value >= 20 else 1 if value >= 2 else 2 if value >= 0.1 else 3}f}"


def _draw(run: Run, path: Path) -> None:
    """GB/s and µs over the size of one array; µs of the other two batches as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.8), layout="constrained", width_ratios=(1, 1, 0.9))
    _lines(panels[0], run, gb_per_s, "GB/s, more is better")
    _lines(panels[1], run, wall_us, "µs a batch, less is better")
    _bars(panels[2], run)
    handles, titles = panels[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower center", ncols=len(titles), frameon=False, fontsize=10)
    figure.suptitle("The same batch from one worker process to the trainer: medians, least to most", fontsize=12)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _lines(panel: Any, run: Run, value: Value, title: str) -> None:
    sizes = [payload.kinds[0][0][0] * 4 for payload in FLOATS]
    for way, made in TRANSPORTS.items():
        spreads = [run.spread(way, payload.name, value) for payload in FLOATS]
        style = {"color": _COLOURS[way], "zorder": 3 if way == _OURS else 2}
        panel.plot(
            sizes,
            [s.middle for s in spreads],
            marker="o",
            ms=5,
            lw=2.5 if way == _OURS else 1.6,
            label=made.title,
            **style,
        )
        panel.fill_between(
            sizes, [s.least for s in spreads], [s.most for s in spreads], color=_COLOURS[way], alpha=0.13, lw=0
        )
    panel.set(xscale="log", yscale="log", xlabel="one float32 array")
    panel.set_xticks(sizes, [payload.name for payload in FLOATS])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}" if y >= 1 else f"{y:g}")
    panel.set_title(title, fontsize=11, loc="left")
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _bars(panel: Any, run: Run) -> None:
    names = [name for name in PAYLOADS if name not in {payload.name for payload in FLOATS}]
    ticks, most = [], 0.0
    for group, name in enumerate(names):
        for place, way in enumerate(TRANSPORTS):
            found, y = run.spread(way, name, wall_us), group * (len(TRANSPORTS) + 1) + place
            whisker = [[found.middle - found.least], [found.most - found.middle]]
            panel.barh(y, found.middle, color=_COLOURS[way], xerr=whisker, ecolor="#495057", capsize=2)
            panel.text(found.most * 1.15, y, _number(found.middle), va="center", fontsize=9)
            most = max(most, found.most)
        ticks.append(group * (len(TRANSPORTS) + 1) + (len(TRANSPORTS) - 1) / 2)
    panel.set_xscale("log")
    panel.set_xlim(5, most * 3)
    panel.minorticks_off()
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    panel.set_yticks(ticks, [_BATCHES[name] for name in names])
    panel.invert_yaxis()
    panel.set_title("µs a batch of other kinds, less is better", fontsize=11, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


_BATCHES = {"nested": "nested,\n0.8 MB", "texts": "64 texts,\n13 kB"}
