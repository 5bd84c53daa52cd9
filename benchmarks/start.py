"""Question: how soon is the first batch there, how soon do all workers run, and what memory do they take?

    python -m benchmarks.start [--rounds 5] [--workers 1,2,8,32] [--imports numpy_only,imaging,pytorch]

The data code costs nothing, so what is seen is the start of processes and what they import. A cell is a process of its
own; a round runs every contender once, in an order that turns. PyTorch's default forks the trainer, which has imported
everything, and so does SPDL; Stoker and Grain start from fresh interpreters. Where a contender starts as many
interpreters as workers, more than 8 are left out: they take a minute.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.memory import process_pss, tree_pss
from benchmarks.rounds import RESULTS, machine_of
from benchmarks.summary import Spread

BATCH = 16
IMPORTS = {"numpy_only": "NumPy alone", "imaging": "SciPy, Pillow and OpenCV", "pytorch": "PyTorch"}
TITLES = {
    "warm": "Stoker",
    "model": "Stoker, after a model was built for 2 s",
    "fresh": 'Stoker, start="fresh"',
    "torch": "PyTorch DataLoader (fork)",
    "torch_spawn": "PyTorch DataLoader (spawn)",
    "grain": "Grain mp_prefetch",
    "spdl": "SPDL iterate_in_subprocess (fork)",
}
PACKAGES = {"torch": "torch", "torch_spawn": "torch", "grain": "grain", "spdl": "spdl"}
"""What a contender needs; without it, it is left out."""
INTERPRETERS = {"fresh", "torch_spawn", "grain"}
"""The contenders that start as many interpreters as workers, of which they get at most `MOST`."""
MOST = 8
OURS = ("warm", "model", "fresh")
BUILDING_S, KILLS = 2.0, 5


# ── one cell ─────────────────────────────────────────────────────────────────────────────────────
def batches(contender: str, source: Any, workers: int) -> Iterator[Any]:
    """The batches of a loader that is made now."""
    if contender in OURS:
        import stoker

        start = "fresh" if contender == "fresh" else "warm"
        return iter(stoker.Loader(source, batch_size=BATCH, workers=workers, start=start))  # type: ignore[arg-type]
    if contender == "grain":
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain's workers ask for one
        dataset = grain.MapDataset.source(source).batch(BATCH)
        read = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        return iter(read.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))
    if contender == "spdl":
        from spdl.pipeline import iterate_in_subprocess

        return in_turn([iterate_in_subprocess(partial(Stripe, source, first, workers)) for first in range(workers)])
    from torch.utils.data import DataLoader

    context = "spawn" if contender == "torch_spawn" else "fork"
    return iter(DataLoader(source, batch_size=BATCH, num_workers=workers, multiprocessing_context=context))


@dataclass
class Stripe:
    """Every `step`-th batch, as a subprocess of SPDL makes them."""

    source: Any
    first: int
    step: int

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.first, len(self.source) // BATCH, self.step):
            yield np.stack([self.source[index] for index in range(number * BATCH, (number + 1) * BATCH)])


def in_turn(streams: list[Any]) -> Iterator[Any]:
    iterators = [iter(stream) for stream in streams]
    while True:
        yield from map(next, iterators)


def build_model() -> None:
    """Keep one core busy, as building a model does."""
    done = time.perf_counter() + BUILDING_S
    while time.perf_counter() < done:
        sum(range(1000))


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the first batch and until each worker has delivered, and the workers' memory in bytes."""
    source = importlib.import_module(f"benchmarks.imports.{asked.imports}").Rows()
    _import_peer(asked.contender)
    before, begun = process_pss(os.getpid()), time.perf_counter()
    pulled = batches(asked.contender, source, asked.workers)
    if asked.contender == "model":
        build_model()
        begun = time.perf_counter()
    seen = processes(next(pulled))
    first = time.perf_counter() - begun
    while len(seen) < asked.workers:
        seen |= processes(next(pulled))
    found = {"first_s": first, "up_s": time.perf_counter() - begun, "bytes": tree_pss(os.getpid()) - before}
    if asked.contender in OURS and asked.workers <= MOST:
        found["back_s"] = median(recovery(pulled, seen) for _ in range(KILLS))
    return found


def processes(batch: Any) -> set[int]:
    """The processes that made its rows."""
    return {int(process) for process in np.asarray(batch)[:, 0].tolist()}


def recovery(pulled: Iterator[Any], workers: set[int]) -> float:
    """Seconds from a worker's death to the first batch that holds work of the new one."""
    victim = workers.pop()
    os.kill(victim, signal.SIGKILL)
    begun = time.perf_counter()
    while not (new := processes(next(pulled)) - workers - {victim}):
        pass
    workers |= new
    return time.perf_counter() - begun


def _import_peer(contender: str) -> None:
    """Import what is not to be measured: the loader's own package."""
    if contender in PACKAGES:
        importlib.import_module(PACKAGES[contender])
    else:
        importlib.import_module("stoker.loader")


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────
def run_cell(asked: argparse.Namespace, imports: str, workers: int, contender: str) -> dict[str, Any]:
    """The figures of a cell that runs in a process of its own, or what it said last."""
    command = [sys.executable, "-m", "benchmarks.start", "--cell", "--imports", imports]
    command += ["--workers", str(workers), "--contender", contender]
    record = {"imports": imports, "workers": workers, "contender": contender}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=asked.timeout)
    except subprocess.TimeoutExpired:
        return record | {"fault": f"not done after {asked.timeout:.0f} s"}
    if done.returncode:
        return record | {"fault": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    return record | json.loads(done.stdout.strip().splitlines()[-1])


def run(asked: argparse.Namespace) -> None:
    """All cells, round after round; the results are written after each round."""
    records: list[dict[str, Any]] = []
    for turn in range(asked.rounds):
        shift = turn % len(asked.contenders)
        for imports in asked.imports:
            for workers in asked.workers:
                for contender in asked.contenders[shift:] + asked.contenders[:shift]:
                    if contender in INTERPRETERS and workers > MOST:
                        continue
                    record = run_cell(asked, imports, workers, contender) | {"round": turn}
                    records.append(record)
                    shown = record.get("fault") or f"first {record['first_s']:6.2f} s, all {record['up_s']:6.2f} s"
                    print(f"{turn} {imports:10} {workers:3} {contender:11} {shown}", flush=True)
        asked.out.mkdir(parents=True, exist_ok=True)
        data = {"question": "start", "machine": machine_of(asked), "records": records}
        (asked.out / "start.json").write_text(json.dumps(data, indent=1) + "\n")
        (asked.out / "start.md").write_text(table(data))
        draw(data, asked.out / "start.png")


def of(records: list[dict[str, Any]], imports: str, workers: int, contender: str, key: str) -> Spread | None:
    """The spread of a figure of one cell."""
    cell = imports, workers, contender
    return Spread.of(
        record[key]
        for record in records
        if (record["imports"], record["workers"], record["contender"]) == cell and key in record
    )


def text(found: Spread | None, scale: float, form: str) -> str:
    """A median with its least and most."""
    if found is None:
        return "–"
    return f"{found.middle * scale:{form}} ({found.least * scale:{form}}–{found.most * scale:{form}})"


COLUMNS = {
    "first_s": ("first batch, s", 1.0, ".3f"),
    "up_s": ("all workers, s", 1.0, ".2f"),
    "bytes": ("MB", 1e-6, ".0f"),
    "back_s": ("a worker replaced, ms", 1e3, ".0f"),
}
"""The figures: heading, scale and format."""


def title(imports: str, packages: dict[str, str]) -> str:
    """What the data code imports."""
    if imports == "imaging" and "opencv-python-headless" not in packages:
        return "SciPy and Pillow (OpenCV is not installed)"
    return IMPORTS[imports]


def counts(records: list[dict[str, Any]], imports: str) -> list[int]:
    """The numbers of workers that were measured."""
    return sorted({record["workers"] for record in records if record["imports"] == imports})


def table(data: dict[str, Any]) -> str:
    """A Markdown table for each set of imports."""
    records, its = data["records"], data["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in its["packages"].items())
    parts = [
        "# Start: the first batch, all workers, memory",
        f"{its['cores']} cores of {its['cpu']}, Linux {its['kernel']}, Python {its['python']}; {packages}; "
        f"{its['date']}.\n\nMedians of {len({record['round'] for record in records})} alternating rounds, least–most "
        "beside them. Seconds from just before the loader is made, to the first batch and until a batch of each worker "
        f"has come; *after a model was built*: from the first pull, {BUILDING_S:.0f} s of a busy core after the Loader "
        "was made. Memory is that of the whole tree of processes (PSS), less what the trainer had before. *A worker "
        "replaced*: from SIGKILL to the first batch with work of the new process.",
    ]
    for imports in IMPORTS:
        lines = [f"| workers | loader | {' | '.join(heading for heading, *_ in COLUMNS.values())} |"]
        lines.append("|---:|---|" + "---:|" * len(COLUMNS))
        for workers in counts(records, imports):
            for contender, name in TITLES.items():
                cells = [
                    text(of(records, imports, workers, contender, key), scale, form)
                    for key, (_, scale, form) in COLUMNS.items()
                ]
                if set(cells) != {"–"}:
                    lines.append(f"| {workers} | {name} | {' | '.join(cells)} |")
        if len(lines) > 2:
            parts.append(f"## {title(imports, its['packages'])}\n\n" + "\n".join(lines))
    faults = sorted(
        {
            f"- {IMPORTS[r['imports']]}, {r['workers']} × {TITLES[r['contender']]}: {r['fault']}"
            for r in records
            if "fault" in r
        }
    )
    return "\n\n".join([*parts, *(["## What went wrong\n\n" + "\n".join(faults)] if faults else [])]) + "\n"


def draw(data: dict[str, Any], path: Path) -> None:
    """A panel for each set of imports: seconds to the first batch by the number of workers, a line a contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = data["records"]
    panels = [imports for imports in IMPORTS if counts(records, imports)]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.5 * len(panels), 4.2), squeeze=False, sharey=True, layout="constrained"
    )
    for panel, imports in zip(axes.flat, panels, strict=True):
        numbers = counts(records, imports)
        for place, (contender, name) in enumerate(TITLES.items()):
            bars = [(n, bar) for n in numbers if (bar := of(records, imports, n, contender, "first_s")) is not None]
            if not bars:
                continue
            middles = [bar.middle for _, bar in bars]
            whiskers = [[bar.middle - bar.least for _, bar in bars], [bar.most - bar.middle for _, bar in bars]]
            shown = {"yerr": whiskers, "label": name, "color": _colour(contender, place), "capsize": 2, "marker": "o"}
            panel.errorbar([n for n, _ in bars], middles, **shown)
        panel.set(xscale="log", yscale="log", xlabel="workers")
        panel.set_xticks(numbers, [str(number) for number in numbers])
        panel.set_title(title(imports, data["machine"]["packages"]), fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    axes.flat[0].set_ylabel("seconds to the first batch, less is better")
    axes.flat[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _colour(contender: str, place: int) -> str:
    ours = {"warm": "#d9480f", "model": "#f08c00", "fresh": "#e599a0"}
    return ours.get(contender) or ("#748ffc", "#364fc7", "#2b8a3e", "#868e96")[place - len(OURS)]


def installed(contenders: list[str]) -> list[str]:
    """Those whose package is there; the others are named on stderr."""
    missing = [name for name in contenders if find_spec(PACKAGES.get(name, "stoker")) is None]
    for name in missing:
        print(f"!! {TITLES[name]} is left out: pip install {PACKAGES[name]}", file=sys.stderr, flush=True)
    return [name for name in contenders if name not in missing]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default="1,2,8,32", help="numbers of workers, with commas")
    parser.add_argument("--imports", default=",".join(IMPORTS), help=f"any of {','.join(IMPORTS)}")
    parser.add_argument("--contenders", type=lambda given: given.split(","), default=list(TITLES))
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds after which a cell is killed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--cell", action="store_true", help="run one cell here, and print its figures as JSON")
    parser.add_argument("--contender")
    asked = parser.parse_args()
    if asked.cell:
        asked.workers = int(asked.workers)
        print(json.dumps(measure(asked)), flush=True)
        os._exit(0)  # the peers' workers are of no further interest
    asked.workers = [int(number) for number in asked.workers.split(",")]
    asked.imports = asked.imports.split(",")
    asked.contenders = installed(asked.contenders)
    run(asked)


if __name__ == "__main__":
    main()
