"""Question: how soon is the first batch there, how soon do all workers run, and what memory do they take?

    python -m benchmarks.start [--rounds 5] [--workers 1,2,8,32] [--imports numpy_only,imaging,pytorch]

The data code costs nothing, so what is seen is the start of processes and what they import. A cell is a process of its
own; a round runs every contender once, in an order that turns. PyTorch's default forks the trainer, which has imported
everything; Stoker and Grain start from fresh interpreters.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.memory import process_pss, tree_pss
from benchmarks.rounds import RESULTS, machine_of
from benchmarks.summary import Spread

BATCH = 16
IMPORTS = {"numpy_only": "NumPy alone", "imaging": "SciPy and Pillow", "pytorch": "PyTorch"}
TITLES = {
    "warm": "Stoker",
    "fresh": 'Stoker, start="fresh"',
    "torch": "PyTorch DataLoader (fork)",
    "torch_spawn": "PyTorch DataLoader (spawn)",
    "grain": "Grain mp_prefetch",
}


# ── one cell ─────────────────────────────────────────────────────────────────────────────────────
def batches(contender: str, source: Any, workers: int) -> Iterator[Any]:
    """The batches of a loader that is made now."""
    if contender in ("warm", "fresh"):
        import stoker

        yield from stoker.Loader(source, batch_size=BATCH, workers=workers, start=contender)  # type: ignore[arg-type]
    elif contender == "grain":
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain's workers ask for one
        dataset = grain.MapDataset.source(source).batch(BATCH)
        read = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        yield from read.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    else:
        from torch.utils.data import DataLoader

        context = "spawn" if contender == "torch_spawn" else "fork"
        yield from DataLoader(source, batch_size=BATCH, num_workers=workers, multiprocessing_context=context)


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch and until each worker has delivered, and the workers' memory in bytes."""
    source = importlib.import_module(f"benchmarks.imports.{asked.imports}").Rows()
    _import_peer(asked.contender)
    before, begun = process_pss(os.getpid()), time.perf_counter()
    pulled = batches(asked.contender, source, asked.workers)
    seen = set(np.asarray(next(pulled))[:, 0].tolist())
    first = time.perf_counter() - begun
    while len(seen) < asked.workers:
        seen |= set(np.asarray(next(pulled))[:, 0].tolist())
    up = time.perf_counter() - begun
    return {"first_s": first, "up_s": up, "bytes": tree_pss(os.getpid()) - before}


def _import_peer(contender: str) -> None:
    """Import what is not to be measured: the loader's own package."""
    importlib.import_module({"grain": "grain", "warm": "stoker", "fresh": "stoker"}.get(contender, "torch"))


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
                    record = run_cell(asked, imports, workers, contender) | {"round": turn}
                    records.append(record)
                    shown = record.get("fault") or f"first {record['first_s']:6.2f} s, all {record['up_s']:6.2f} s"
                    print(f"{turn} {imports:10} {workers:3} {contender:11} {shown}", flush=True)
        asked.out.mkdir(parents=True, exist_ok=True)
        data = {"question": "start", "machine": machine_of(asked), "records": records}
        (asked.out / "start.json").write_text(json.dumps(data, indent=1) + "\n")
        (asked.out / "start.md").write_text(table(data))


def _of(records: list[dict[str, Any]], imports: str, workers: int, contender: str, key: str) -> str:
    found = [
        record[key]
        for record in records
        if (record["imports"], record["workers"], record["contender"]) == (imports, workers, contender)
        and key in record
    ]
    bars = Spread.of(found)
    if bars is None:
        return "–"
    scale, form = (1e-6, ".0f") if key == "bytes" else (1.0, ".2f")
    return f"{median(found) * scale:{form}} ({bars.least * scale:{form}}–{bars.most * scale:{form}})"


def table(data: dict[str, Any]) -> str:
    """A Markdown table for each set of imports."""
    records, its = data["records"], data["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in its["packages"].items())
    parts = [
        "# Start: the first batch, all workers, memory",
        f"{its['cores']} cores of {its['cpu']}, Linux {its['kernel']}, Python {its['python']}; {packages}; "
        f"{its['date']}.\n\nMedians of {len({record['round'] for record in records})} alternating rounds, least–most "
        "beside them. Seconds from just before the loader is made, to the first batch and until a batch of each worker "
        "has come. Memory in MB is that of the whole tree of processes (PSS), less what the trainer had before.",
    ]
    for imports, title in IMPORTS.items():
        counts = sorted({record["workers"] for record in records if record["imports"] == imports})
        lines = ["| workers | loader | first batch, s | all workers, s | MB |", "|---:|---|---:|---:|---:|"]
        for workers in counts:
            for contender, name in TITLES.items():
                cells = [_of(records, imports, workers, contender, key) for key in ("first_s", "up_s", "bytes")]
                lines.append(f"| {workers} | {name} | {' | '.join(cells)} |")
        if counts:
            parts.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


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
    run(asked)


if __name__ == "__main__":
    main()
