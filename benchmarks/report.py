"""The results as a table in Markdown and a bar chart.

python -m benchmarks.report [benchmarks/results/throughput.json …]    writes .md and .png anew
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.contenders import LIMIT, LIMITS, TITLES
from benchmarks.summary import Record, Spread, chosen, extra, field, peak, ratio, right, spread

Cell = Callable[[list[Record], str, str], str]


def write_report(path: Path) -> None:
    """Write the table and the chart beside a file of results."""
    data = json.loads(path.read_text())
    path.with_suffix(".md").write_text(table(data))
    draw(data, path.with_suffix(".png"))


def table(data: dict[str, Any]) -> str:
    """All cases as Markdown tables, with the machine and what went wrong."""
    columns = COLUMNS[data["question"]]
    records: list[Record] = data["records"]
    parts = [f"# {TITLE[data['question']]}", _machine(data["machine"], records)]
    for case in _cases(records):
        names = [name for name in TITLES if any(r["case"] == case and r["contender"] == name for r in records)]
        lines = [
            "| contender | " + " | ".join(columns) + " |",
            "|---|" + "---:|" * len(columns),
            *("| " + " | ".join([TITLES[name], *_row(columns, records, case, name)]) + " |" for name in names),
        ]
        parts.append(f"## ({case}) {CASES[case].title}\n\n" + "\n".join(lines))
    faults = sorted({f"- ({r['case']}) {TITLES[r['contender']]}: {r['fault']}" for r in records if r["fault"]})
    if faults:
        parts.append("## What went wrong\n\n" + "\n".join(faults))
    return "\n\n".join(parts) + "\n"


def _row(columns: dict[str, Cell], records: list[Record], case: str, name: str) -> list[str]:
    return [cell(records, case, name) for cell in columns.values()]


def _machine(machine: dict[str, Any], records: list[Record]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    rounds = len({record["round"] for record in records})
    return (
        f"{machine['workers']} workers, {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}; {packages}; {machine['date']}.\n\n"
        f"Medians of {rounds} alternating rounds, least–most beside them; ratios are taken within a round. "
        "Memory is PSS of the whole tree of processes; *extra* is less what the trainer had before the loader was made."
    )


def _cases(records: list[Record]) -> list[str]:
    return sorted({record["case"] for record in records})


def _text(found: Spread | None, form: str, scale: float = 1.0) -> str:
    if found is None:
        return "–"
    middle, least, most = (format(value * scale, form) for value in (found.middle, found.least, found.most))
    return middle if least == most else f"{middle} ({least}–{most})"


def _figure(value: Callable[[Record], float | None], form: str, scale: float = 1.0) -> Cell:
    return lambda records, case, name: _text(spread(chosen(records, case, name), value), form, scale)


def _share(records: list[Record], case: str, name: str) -> str:
    return _text(ratio(records, case, name, LIMIT, "examples_per_s"), ".3f")


def _versus(records: list[Record], case: str, name: str) -> str:
    return _text(ratio(records, case, name, "stoker", "first_batch_s"), ".2f")


def _right(records: list[Record], case: str, name: str) -> str:
    return right([r for r in records if r["case"] == case and r["contender"] == name])


_MB = 1e-6
TITLE = {
    "throughput": "Examples a second into tf.data",
    "first_batch": "The first batch, and memory",
}
COLUMNS: dict[str, dict[str, Cell]] = {
    "throughput": {
        "examples/s": _figure(field("examples_per_s"), ",.0f"),
        "of limit 1": _share,
        "first batch, s": _figure(field("first_batch_s"), ".2f"),
        "CPU s a 1,000": _figure(field("cpu_s_per_1000"), ".4f"),
        "peak PSS, MB": _figure(peak("reading"), ",.0f", _MB),
        "extra, MB": _figure(extra("reading"), ",.0f", _MB),
        "right": _right,
    },
    "first_batch": {
        "first batch, s": _figure(field("first_batch_s"), ".2f"),
        "÷ Stoker's": _versus,
        "peak PSS, MB": _figure(peak("reading"), ",.0f", _MB),
        "extra while reading, MB": _figure(extra("reading"), ",.0f", _MB),
        "extra in a long step, MB": _figure(extra("paused"), ",.0f", _MB),
        "right": _right,
    },
}


def draw(data: dict[str, Any], path: Path) -> None:
    """A panel a case, a bar a contender, its spread as a whisker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records: list[Record] = data["records"]
    cases = _cases(records)
    bars = _share_bars if data["question"] == "throughput" else _first_bars
    rows = (len(cases) + 1) // 2
    size = (12, 3.4 * rows) if len(cases) > 1 else (7, 3.6)
    figure, axes = pyplot.subplots(rows, min(len(cases), 2), figsize=size, squeeze=False, layout="constrained")
    for panel, case in zip(axes.flat, cases, strict=False):
        _panel(panel, bars(records, case), f"({case}) {CASES[case].title}")
    for panel in axes.flat[len(cases) :]:
        panel.set_visible(False)
    unit = "share of limit 1 (the user's code alone)" if data["question"] == "throughput" else "seconds, less is better"
    figure.suptitle(f"{TITLE[data['question']]}: {unit}", fontsize=12)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


Bar = tuple[str, Spread, str]


def _share_bars(records: list[Record], case: str) -> list[Bar]:
    """Shares of limit 1; limit 2 is left to the table, for where user code is dear it is far off the scale."""
    found = []
    for name in TITLES:
        share = ratio(records, case, name, LIMIT, "examples_per_s")
        rate = spread(chosen(records, case, name), field("examples_per_s"))
        if share is not None and rate is not None and name not in LIMITS:
            found.append((name, share, f"{share.middle:.2f}   {rate.middle:,.0f}/s"))
    return found


def _first_bars(records: list[Record], case: str) -> list[Bar]:
    found = []
    for name in TITLES:
        first = spread(chosen(records, case, name), field("first_batch_s"))
        more = spread(chosen(records, case, name), extra("paused"))
        if first is not None:
            memory = f"   +{more.middle * _MB:,.0f} MB" if more is not None else ""
            found.append((name, first, f"{first.middle:.2f} s{memory}"))
    return found


def _panel(panel: Any, bars: list[Bar], title: str) -> None:
    colours = ["#d9480f" if name == "stoker" else "#748ffc" for name, _, _ in bars]
    middles = [bar.middle for _, bar, _ in bars]
    whiskers = [[bar.middle - bar.least for _, bar, _ in bars], [bar.most - bar.middle for _, bar, _ in bars]]
    panel.barh(range(len(bars)), middles, color=colours, xerr=whiskers, ecolor="#495057", capsize=2)
    longest = max((bar.most for _, bar, _ in bars), default=1.0)
    for place, (_, bar, text) in enumerate(bars):
        panel.text(bar.most + longest * 0.02, place, text, va="center", fontsize=8)
    panel.set_xlim(0, longest * 1.35)
    panel.set_yticks(range(len(bars)), [TITLES[name] for name, _, _ in bars], fontsize=8)
    panel.invert_yaxis()
    panel.set_title(title, fontsize=10, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent / "results"
    for given in [Path(name) for name in sys.argv[1:]] or sorted(here.glob("*.json")):
        write_report(given)
