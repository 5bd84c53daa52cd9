"""Question: how long does training wait for data at the turn of an epoch, with and without validation in between?

    python -m benchmarks.turn [--rounds 5] [--cases b,c] [--contenders stoker,torch_loader] [--workers 2]

`fit()` on TensorFlow, with a model that does next to nothing and then sleeps for 5 ms, as if an accelerator were at
work: so both cores are the workers'. A gap is the time from the end of an epoch's last step until the data of the next
epoch's first step is there, without the validation, less the time that data takes within an epoch. What Keras itself
does at the turn is in it: see the contender *memory*. A cell is a process of its own; a round runs every contender
once, in an order that turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.fit import DOORS, Labelled, Open, Steps, model_of, on_one_core, over, text
from benchmarks.rounds import RESULTS, machine_of
from benchmarks.summary import Spread

TITLES = {
    "memory": "the same batches, in memory",
    "stoker": "Stoker",
    "stoker_off": "Stoker, ahead=False",
    "torch_loader": "PyTorch DataLoader, persistent workers",
    "grain_workers": "Grain mp_prefetch",
    "tf_data": "tf.data, numpy_function in threads",
}
SIZES = {"b": 64, "c": 4}
"""Examples in a batch: two workers make one in a step of 5 ms, or sooner."""
TURNS = {False: "the next epoch at once", True: "validation in between"}


# ── the doors ────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def stoker_off(source: Any, case: Case, steps: Steps, workers: int) -> Iterator[Any]:
    import stoker

    with stoker.Loader(source, batch_size=case.batch_size, workers=workers, ahead=False) as loader:
        yield loader.to_keras()


def tf_data(source: Any, case: Case, steps: Steps, workers: int) -> AbstractContextManager[Any]:
    import numpy as np
    import tensorflow as tf

    shape, dtype = source[0][0].shape, source[0][0].dtype

    def read(number: Any) -> tuple[Any, Any]:
        x, label = source[int(number)]
        return x, np.int64(label)

    def example(number: Any) -> Any:
        made = tf.numpy_function(read, [number], [dtype, "int64"])
        return tf.ensure_shape(made[0], shape), tf.ensure_shape(made[1], ())

    numbers = tf.data.Dataset.range(len(source))
    return nullcontext(numbers.map(example, num_parallel_calls=workers).batch(case.batch_size).prefetch(2))


OPENERS: dict[str, Open] = {**DOORS, "stoker_off": stoker_off, "tf_data": tf_data}


# ── one cell ─────────────────────────────────────────────────────────────────────────────────────
def watch(step_s: float) -> Any:
    """A callback that sleeps at the end of each step, and notes how long data took: within epochs, and at turns."""
    from keras.callbacks import Callback

    class Watch(Callback):  # type: ignore[misc]  # Keras has no types
        def __init__(self) -> None:
            super().__init__()
            self.within: list[float] = []
            self.turns: list[float] = []
            self._ended = self._tested = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._is_first = True

        def on_test_begin(self, logs: Any = None) -> None:
            self._testing = time.perf_counter()

        def on_test_end(self, logs: Any = None) -> None:
            self._tested = time.perf_counter() - self._testing

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            time.sleep(step_s)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            took = time.perf_counter() - self._ended - self._tested
            (self.turns if self._is_first else self.within).append(took)
            time.sleep(step_s)
            self._is_first, self._tested, self._ended = False, 0.0, time.perf_counter()

    return Watch()


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of each gap but the first, in which Keras compiles the validation, and of a step."""
    on_one_core("tensorflow")
    case = replace(CASES[asked.case], batch_size=SIZES[asked.case])
    its = watch(asked.step / 1000)
    with ExitStack() as opened:

        def data(steps: int) -> Any:
            source = Labelled(case.make(steps * case.batch_size))
            return opened.enter_context(OPENERS[asked.contender](source, case, steps, asked.workers))

        held_out = data(asked.steps // 2) if asked.validation else None
        history = model_of("light").fit(
            data(asked.steps), epochs=asked.epochs, validation_data=held_out, callbacks=[its], verbose=0
        )
    assert len(history.history["loss"]) == asked.epochs == len(its.turns)
    assert len(its.within) == asked.epochs * (asked.steps - 1)
    normal = median(its.within[asked.steps :])
    return {"gaps": [(took - normal) * 1000 for took in its.turns[2:]], "step": normal * 1000 + asked.step}


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────
def run_cell(asked: argparse.Namespace, case: str, contender: str, *, validation: bool) -> dict[str, Any]:
    """The figures of a cell that runs in a process of its own, or what it said last."""
    command = [sys.executable, "-m", "benchmarks.turn", "--cell", "--case", case, "--contender", contender]
    command += ["--validation"] * validation
    for name in ("workers", "steps", "epochs", "step"):
        command += [f"--{name}", str(getattr(asked, name))]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    record: dict[str, Any] = {"case": case, "contender": contender, "validation": validation}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=asked.timeout)
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
        for case in asked.cases:
            for validation in TURNS:
                for contender in asked.contenders[shift:] + asked.contenders[:shift]:
                    record = run_cell(asked, case, contender, validation=validation) | {"round": turn}
                    records.append(record)
                    shown = record.get("fault") or f"{median(record['gaps']):8.2f} ms, a step {record['step']:6.2f} ms"
                    print(f"{turn} {case} {TURNS[validation]:23} {contender:13} {shown}", flush=True)
        asked.out.mkdir(parents=True, exist_ok=True)
        its = machine_of(asked) | {"steps": asked.steps, "epochs": asked.epochs, "step": asked.step}
        data = {"question": "turn", "machine": its, "records": records}
        (asked.out / "turn.json").write_text(json.dumps(data, indent=1) + "\n")
        (asked.out / "turn.md").write_text(table(data))
        draw(data, asked.out / "turn.png")


def of(records: list[dict[str, Any]], group: tuple[str, bool], contender: str, key: str = "gaps") -> dict[int, float]:
    """The gap of a contender, or its step, by round."""
    return {
        record["round"]: median(record[key]) if key == "gaps" else record[key]
        for record in records
        if (record["case"], record["validation"]) == group and record["contender"] == contender and key in record
    }


def groups(records: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """The case and the kind of turn of each table, in the order in which they ran."""
    return list(dict.fromkeys((record["case"], record["validation"]) for record in records))


def table(data: dict[str, Any]) -> str:
    """All groups as Markdown tables."""
    records, its = data["records"], data["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in its["packages"].items())
    parts = [
        "# The gap at the turn of an epoch in `fit()`",
        f"{its['workers']} workers, {its['cores']} cores of {its['cpu']}, Linux {its['kernel']}, "
        f"Python {its['python']}; {packages}; {its['date']}.\n\n"
        f"Medians of {len({record['round'] for record in records})} alternating rounds of {its['epochs']} epochs of "
        f"{its['steps']} steps, least–most beside them; the first turn does not count. A step sleeps for "
        f"{its['step']:g} ms. A gap is the wait for the first data of an epoch, less the wait for data within an "
        "epoch and without the validation; it holds what Keras itself does at the turn, as *in memory* shows.",
    ]
    for group in groups(records):
        case, validation = group
        lines = ["| contender | gap, ms | a step, ms | gap, in steps |", "|---|---:|---:|---:|"]
        for name, title in TITLES.items():
            gaps, steps = of(records, group, name), of(records, group, name, "step")
            if gaps:
                cells = text(Spread.of(gaps.values())), text(Spread.of(steps.values())), text(over(gaps, steps))
                lines.append(f"| {title} | {' | '.join(cells)} |")
        title = f"## ({case}) {CASES[case].title.partition(', batch')[0]}, batch {SIZES[case]}, {TURNS[validation]}"
        parts.append(title + "\n\n" + "\n".join(lines))
    faults = sorted({f"- ({r['case']}) {TITLES[r['contender']]}: {r['fault']}" for r in records if "fault" in r})
    return "\n\n".join([*parts, *(["## What went wrong\n\n" + "\n".join(faults)] if faults else [])]) + "\n"


def draw(data: dict[str, Any], path: Path) -> None:
    """A panel a group, a bar a contender, its spread as a whisker; a line at one step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = data["records"]
    found = groups(records)
    rows = -(-len(found) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, 2.2 * rows + 1), squeeze=False, layout="constrained")
    for panel in axes.flat[len(found) :]:
        panel.set_visible(False)
    for panel, group in zip(axes.flat, found, strict=False):
        bars = [(name, bar) for name in TITLES if (bar := Spread.of(of(records, group, name).values())) is not None]
        longest = max((bar.most for _, bar in bars), default=1.0)
        for place, (name, bar) in enumerate(bars):
            whisker = [[bar.middle - bar.least], [bar.most - bar.middle]]
            colour = {"stoker": "#d9480f", "stoker_off": "#ffa94d", "memory": "#adb5bd"}.get(name, "#748ffc")
            panel.barh(place, bar.middle, color=colour, xerr=whisker, ecolor="#495057", capsize=2)
            panel.text(max(bar.most, 0.0) + longest * 0.02, place, f"{bar.middle:.1f} ms", va="center", fontsize=8)
        panel.axvline(data["machine"]["step"], color="#495057", linewidth=0.8, linestyle=":")
        panel.set_yticks(range(len(bars)), [TITLES[name] for name, _ in bars], fontsize=8)
        panel.set_xlim(min(0.0, *(bar.least for _, bar in bars)), max(longest, data["machine"]["step"]) * 1.25)
        panel.invert_yaxis()
        panel.set_title(f"({group[0]}) batch {SIZES[group[0]]}, {TURNS[group[1]]}", fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Milliseconds that training waits at the turn of an epoch; dotted: one step", fontsize=12)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=lambda given: given.split(","), default=list(SIZES))
    parser.add_argument("--contenders", type=lambda given: given.split(","), default=list(TITLES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40, help="steps of an epoch")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--step", type=float, default=5.0, help="milliseconds that a step sleeps")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a cell is killed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--cell", action="store_true", help="run one cell here, and print its figures as JSON")
    parser.add_argument("--case")
    parser.add_argument("--contender")
    parser.add_argument("--validation", action="store_true")
    asked = parser.parse_args()
    if asked.cell:
        print(json.dumps(measure(asked)), flush=True)
        os._exit(0)  # the peers' workers are of no further interest
    run(asked)


if __name__ == "__main__":
    main()
