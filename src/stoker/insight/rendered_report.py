"""A report as text and as HTML. With Rich installed, text has its tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

Rows = Sequence[Sequence[str]]


def as_text(report: Mapping[str, Any]) -> str:
    """The report, as text."""
    draw = _with_rich if find_spec("rich") else _plain
    return "\n".join([_summary(report), *(draw(heads, rows) for heads, rows in _tables(report))])


def as_html(report: Mapping[str, Any]) -> str:
    """The report, as part of an HTML page."""
    parts = [f"<p>{html.escape(_summary(report))}</p>"]
    for heads, rows in _tables(report):
        lines = [("th", heads), *(("td", row) for row in rows)]
        body = "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in lines
        )
        parts.append(f"<table>{body}</table>")
    return "\n".join(parts)


def _summary(report: Mapping[str, Any]) -> str:
    if not report["batches"]:
        return "No batch was read yet."
    given = f"{report['examples']:,} examples in {report['batches']:,} batches"
    if not report["examples_per_second"]:
        return f"{given}. Their speed is known once an iteration has pulled twice."
    speed = f"{report['examples_per_second']:,.0f} examples/s"
    waits = f"Pulls waited {_percent(report['pull_wait'])} of the time"
    ready = f"{report['ready']:.1f} batches were ready at a pull"
    return f"{given}, {speed}. {waits}; {ready}."


def _tables(report: Mapping[str, Any]) -> list[tuple[list[str], Rows]]:
    stages = [
        [name, _seconds(its["per_example"]), _percent(its["share"])]
        for name, its in report["stages"].items()
        if its["seconds"]
    ]
    workers = [
        [number, f"{its['examples']:,}", *(_percent(its[part] / (its["busy"] + its["waiting"])) for part in _PARTS)]
        for number, its in report["workers"].items()
        if its["busy"] + its["waiting"]
    ]
    tables = [
        (["stage", "an example", "of the work"], stages),
        (["worker", "examples", *_PARTS], workers),
    ]
    return [(heads, rows) for heads, rows in tables if rows]


_PARTS = ["busy", "waiting"]


def _seconds(seconds: float) -> str:
    """A duration with its unit: three digits of s, ms or µs."""
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _plain(heads: Sequence[str], rows: Rows) -> str:
    """A table in columns: the first one to the left, the others to the right."""
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n" + "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _with_rich(heads: Sequence[str], rows: Rows) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=100, color_system=None, force_jupyter=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
