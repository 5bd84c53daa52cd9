"""Which cell runs when: round after round, every contender of a case once a round, in an order that turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.contenders import LIMIT, TITLES, runs_on
from benchmarks.report import write_report
from benchmarks.runner import Missing, require, run_cell

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = (
    *("stoker", "tensorflow_cpu", "tensorflow", "keras", "torch", "grain", "spdl", "numpy", "pillow"),
    "opencv-python-headless",
)


def options(question: str, cases: str, contenders: Sequence[str], rounds: int) -> argparse.Namespace:
    """What every question can be asked with, from the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{question}")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--cases", default=cases, help=f"letters, with commas: {','.join(CASES)}")
    parser.add_argument("--contenders", default=",".join(contenders), help=f"any of {','.join(TITLES)}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds after which a cell is killed")
    parser.add_argument("--window", type=float, default=4.0, help="seconds of the timed window")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    asked = parser.parse_args()
    asked.question = question
    asked.cases = asked.cases.split(",")
    asked.contenders = _installed(asked.contenders.split(","))
    unknown = [case for case in asked.cases if case not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    return asked


def run(asked: argparse.Namespace, arguments: list[str]) -> None:
    """Run all cells, and write the results after each round so that an interrupted run leaves what it has."""
    records: list[dict[str, Any]] = []
    for turn in range(asked.rounds):
        for case in asked.cases:
            for contender in _rotated([name for name in asked.contenders if runs_on(name, case)], turn):
                cell = [*arguments, "--workers", str(asked.workers)]
                record = run_cell(contender, case, cell, asked.timeout) | {"round": turn}
                records.append(record)
                print(_line(record), flush=True)
        _write(asked, records)
    print(f"wrote {asked.question}.json, .md and .png")


def _installed(contenders: list[str]) -> list[str]:
    unknown = [name for name in contenders if name not in TITLES]
    if unknown:
        sys.exit(f"no such contender: {', '.join(unknown)}; there are {', '.join(TITLES)}")
    present = []
    for name in contenders:
        try:
            require(name)
        except Missing as missing:
            print(f"!! {missing}", file=sys.stderr, flush=True)
        else:
            present.append(name)
    return present


def _rotated(names: list[str], turn: int) -> list[str]:
    shift = turn % max(len(names), 1)
    return names[shift:] + names[:shift]


def _line(record: dict[str, Any]) -> str:
    rate = f"{record['examples_per_s']:12,.0f} examples/s" if "examples_per_s" in record else ""
    first = f"first batch {record['first_batch_s']:6.2f} s" if "first_batch_s" in record else ""
    right = "" if record["contender"] == LIMIT else f"right: {record['right']}"
    parts = (f"{record['case']} {record['round']} {record['contender']:12}", rate, first, right, record["fault"])
    return "  ".join(part for part in parts if part)


def _write(asked: argparse.Namespace, records: list[dict[str, Any]]) -> None:
    asked.out.mkdir(parents=True, exist_ok=True)
    data = {"question": asked.question, "machine": machine_of(asked), "records": records}
    (asked.out / f"{asked.question}.json").write_text(json.dumps(data, indent=1) + "\n")
    write_report(asked.out / f"{asked.question}.json")


def machine_of(asked: argparse.Namespace) -> dict[str, Any]:
    """What a reader needs to judge the figures by."""
    cpu = next((line for line in _cpu_info() if line.startswith("model name")), "unknown").partition(":")[2].strip()
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": packages,
        "workers": asked.workers,
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
