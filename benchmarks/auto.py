"""Question: is `workers="auto"` as fast as the best fixed number of workers?

    python -m benchmarks.auto [--rounds 3] [--numbers 1,2,4,8] [--workloads decode,wait,memory,model]

Four workloads, each bound by something else. The loop of *model* computes nothing but sleeps, as it would for an
accelerator; the other loops take batches as fast as they come. A cell is a process of its own. Fixed numbers are
measured after 4 s, "auto" after 30.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES
from benchmarks.rounds import RESULTS, machine_of
from benchmarks.summary import Spread

LENGTH = 10_000_000
"""Examples of a source: more than a cell reads."""


@dataclass
class Decode:
    """JPEGs."""

    photos: Any

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return self.photos[index % len(self.photos)]


class Wait:
    """Examples from a server that answers after 10 ms."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.01)
        return np.full(1024, index, np.float32)


class Memory:
    """Examples of 1.5 MB, copied from an array that fits into no cache."""

    def __init__(self) -> None:
        self.rows = np.ones((256, 1 << 19, 3), np.uint8)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return self.rows[index * 7 % 256]


class Model:
    """Examples that cost next to nothing."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return np.full(1024, index, np.float32)


@dataclass(frozen=True)
class Workload:
    """What workers do, and how long the trainer takes for a step.

    Attributes:
        title: what it is bound by, as the results name it.
        make: makes the source.
        batch_size: rows of a batch.
        step: seconds that the trainer takes for a batch.
    """

    title: str
    make: Callable[[], Any]
    batch_size: int
    step: float = 0.0


WORKLOADS = {
    "decode": Workload("decoding JPEGs", lambda: Decode(CASES["c"].make(2_000)), 64),
    "wait": Workload("waiting 10 ms for each example", Wait, 32),
    "memory": Workload("copying 1.5 MB for each example", Memory, 32),
    "model": Workload("a model of 20 ms a step", Model, 64, step=0.02),
}
AUTO = "auto"


# ── one cell ─────────────────────────────────────────────────────────────────────────────────────
def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Batches a second in the timed window, and the number of workers at its end."""
    import stoker

    load = WORKLOADS[asked.workload]
    workers = AUTO if asked.number == AUTO else int(asked.number)
    settle = asked.settle if workers == AUTO else asked.warm_up
    with stoker.Loader(load.make(), batch_size=load.batch_size, workers=workers) as loader:
        batches, taken = iter(loader), 0
        next(batches)
        begun = time.perf_counter()
        while (now := time.perf_counter()) < begun + settle + asked.window:
            if now < begun + settle:
                taken, since = 0, now
            next(batches)
            taken += 1
            if load.step:
                time.sleep(load.step)
        speed = taken / (time.perf_counter() - since)
        stats = loader.stats()
    changes = [[round(change.seconds, 1), change.workers, change.reason] for change in stats.worker_changes]
    return {"batches_per_s": speed, "chosen": stats.workers, "changes": changes}


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────
def run_cell(asked: argparse.Namespace, workload: str, number: str) -> dict[str, Any]:
    """The figures of a cell that runs in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.auto", "--cell", "--workload", workload, "--number", number]
    for name in ("settle", "warm_up", "window"):
        command += [f"--{name.replace('_', '-')}", str(getattr(asked, name))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 + asked.settle, check=True)
    return {"workload": workload, "number": number, **json.loads(done.stdout.splitlines()[-1])}


def run(asked: argparse.Namespace) -> None:
    """All cells, round after round; the results are written after each round."""
    records: list[dict[str, Any]] = []
    numbers = [*asked.numbers, AUTO]
    for turn in range(asked.rounds):
        shift = turn % len(numbers)
        for workload in asked.workloads:
            for number in numbers[shift:] + numbers[:shift]:
                record = run_cell(asked, workload, number) | {"round": turn}
                records.append(record)
                shown = f"{record['batches_per_s']:8.1f} batches/s, {record['chosen']} workers"
                print(f"{turn} {workload:7} {number:>4} {shown}", flush=True)
        asked.out.mkdir(parents=True, exist_ok=True)
        data = {"question": "auto", "machine": machine(asked), "records": records}
        (asked.out / "auto.json").write_text(json.dumps(data, indent=1) + "\n")
        (asked.out / "auto.md").write_text(table(data))
        draw(data, asked.out / "auto.png")


def of(records: list[dict[str, Any]], workload: str, number: str) -> dict[int, float]:
    """Batches a second, by round."""
    return {
        record["round"]: record["batches_per_s"]
        for record in records
        if (record["workload"], record["number"]) == (workload, number)
    }


def over_best(records: list[dict[str, Any]], workload: str, numbers: list[str]) -> Spread | None:
    """The speed of "auto" over that of the fixed number with the best median, each ratio taken within a round."""
    fixed = [of(records, workload, number) for number in numbers]
    best = max(fixed, key=lambda speeds: float(np.median(list(speeds.values()))))
    mine = of(records, workload, AUTO)
    return Spread.of(mine[turn] / best[turn] for turn in sorted(mine.keys() & best.keys()))


def text(found: Spread | None, form: str) -> str:
    """A median with its least and most."""
    return "–" if found is None else f"{found.middle:{form}} ({found.least:{form}}–{found.most:{form}})"


def table(data: dict[str, Any]) -> str:
    """A Markdown table of all workloads."""
    records, its = data["records"], data["machine"]
    numbers = its["numbers"]
    rounds = len({record["round"] for record in records})
    head = [f"{number} worker{'s' if number != '1' else ''}" for number in numbers]
    lines = [
        f'| bound by | {" | ".join(head)} | "auto" | ÷ best fixed | chose |',
        "|---|" + "---:|" * (len(numbers) + 3),
    ]
    for workload in dict.fromkeys(record["workload"] for record in records):
        cells = [text(Spread.of(of(records, workload, number).values()), ".1f") for number in [*numbers, AUTO]]
        chosen = [str(r["chosen"]) for r in records if (r["workload"], r["number"]) == (workload, AUTO)]
        ratio = text(over_best(records, workload, numbers), ".2f")
        lines.append(f"| {WORKLOADS[workload].title} | {' | '.join(cells)} | {ratio} | {', '.join(chosen)} |")
    return (
        f'# `workers="auto"` beside fixed numbers of workers\n\n'
        f"Batches a second, {its['cores']} cores of {its['cpu']}, Linux {its['kernel']}, Python {its['python']}; "
        f"{its['date']}. Medians of {rounds} alternating rounds, least–most beside them, over {its['window']:.0f} s; "
        f'fixed numbers after {its["warm_up"]:.0f} s, "auto" after {its["settle"]:.0f}. The ratio is to the fixed '
        "number with the best median, taken within a round.\n\n" + "\n".join(lines) + "\n"
    )


def draw(data: dict[str, Any], path: Path) -> None:
    """A panel a workload, a bar a number of workers, its spread as a whisker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records, numbers = data["records"], [*data["machine"]["numbers"], AUTO]
    workloads = list(dict.fromkeys(record["workload"] for record in records))
    figure, axes = pyplot.subplots(1, len(workloads), figsize=(3.2 * len(workloads), 3.2), layout="constrained")
    for panel, workload in zip(np.atleast_1d(axes), workloads, strict=True):
        for place, number in enumerate(numbers):
            bar = Spread.of(of(records, workload, number).values())
            if bar is not None:
                whisker = [[bar.middle - bar.least], [bar.most - bar.middle]]
                colour = "#d9480f" if number == AUTO else "#748ffc"
                panel.bar(place, bar.middle, color=colour, yerr=whisker, ecolor="#495057", capsize=2)
        panel.set_xticks(range(len(numbers)), numbers)
        panel.set_title(WORKLOADS[workload].title, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Batches a second by number of workers, more is better", fontsize=11)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def machine(asked: argparse.Namespace) -> dict[str, Any]:
    """The machine, and how it was measured."""
    mine = {name: getattr(asked, name) for name in ("numbers", "settle", "warm_up", "window")}
    return machine_of(argparse.Namespace(workers=0)) | mine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workloads", type=lambda given: given.split(","), default=list(WORKLOADS))
    parser.add_argument("--numbers", type=lambda given: given.split(","), default=["1", "2", "4", "8"])
    parser.add_argument("--settle", type=float, default=30.0, help='seconds that "auto" has to find its number')
    parser.add_argument("--warm-up", type=float, default=4.0, help="seconds before a fixed number is measured")
    parser.add_argument("--window", type=float, default=10.0, help="seconds of the timed window")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--cell", action="store_true", help="run one cell here, and print its figures as JSON")
    parser.add_argument("--workload", choices=list(WORKLOADS))
    parser.add_argument("--number")
    asked = parser.parse_args()
    if asked.cell:
        print(json.dumps(measure(asked)), flush=True)
    else:
        run(asked)


if __name__ == "__main__":
    main()
