"""The table of faults at the end of a run: each cell with its seconds."""

from __future__ import annotations

from typing import Any

import pytest

#: The `-m` of `make faults`.
WHOLE = "stress or not stress"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: list[tuple[Any, ...]] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            told = dict(getattr(report, "user_properties", []))
            if "cell" in told and report.when == "call":
                rows.append((*told["cell"], f"{report.duration:.2f}", "" if report.passed else "FAILED"))
    if rows and terminalreporter.config.option.markexpr == WHOLE:
        widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
        terminalreporter.section("faults: where, how, how often, source, outcome, seconds")
        for row in sorted(rows):
            terminalreporter.line("  ".join(str(part).ljust(width) for part, width in zip(row, widths, strict=True)))
        terminalreporter.line(f"{len(rows)} cells, {sum(bool(row[-1]) for row in rows)} failed")
