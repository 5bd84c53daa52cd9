"""Question: how long does a step of ``fit()`` take through each door into Keras, beside the same batches in memory?

    python -m benchmarks.fit [--rounds 5] [--cases b,c] [--backends tensorflow,torch,jax] [--workers 2]

Two models. *light* does next to nothing, so the data is what is waited for. *heavy* takes as long a step on one core as
the workers take for a batch on theirs, as a model on an accelerator does that is well fed. Both leave one core to the
workers. A cell is a process of its own; a round runs every contender once, in an order that turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import CASES, Case
from benchmarks.rounds import RESULTS, machine_of
from benchmarks.summary import Spread

CONTENDERS = ("memory", "stoker", "torch_loader", "torch_alone", "grain_workers", "grain_alone")
TITLES = {
    "memory": "the same batches, in memory",
    "stoker": "Stoker `to_keras()`",
    "torch_loader": "Keras' torch adapter, DataLoader with workers",
    "torch_alone": "Keras' torch adapter, DataLoader without workers",
    "grain_workers": "Keras' Grain adapter, mp_prefetch",
    "grain_alone": "Keras' Grain adapter, its default threads",
}
OVER_MEMORY = ("memory", "stoker")
"""The contenders that run with the heavy model, which asks what Stoker adds to the time from memory."""
CLASSES, DISTINCT = 10, 6
"""Classes of the labels; batches that the contender *memory* holds and hands out in turn."""
Steps = int
Open = Callable[[Any, Case, Steps, int], AbstractContextManager[Any]]


@dataclass
class Labelled:
    """The source of a case, with its example's number as a class."""

    source: Any

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        x, number = self.source[index]
        return x, number % CLASSES


# ── the doors ────────────────────────────────────────────────────────────────────────────────────
def memory(source: Any, case: Case, steps: Steps, workers: int) -> AbstractContextManager[Any]:
    import keras

    batches = [
        case.batching.collate([source[i * case.batch_size + row] for row in range(case.batch_size)])
        for i in range(DISTINCT)
    ]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        ready = [tf.data.Dataset.from_tensors(batch) for batch in batches]
        dataset = ready[0]
        for other in ready[1:]:
            dataset = dataset.concatenate(other)
        return nullcontext(dataset.repeat().take(steps).apply(tf.data.experimental.assert_cardinality(steps)))
    if keras.backend.backend() == "torch":
        import torch

        batches = [tuple(map(torch.from_numpy, batch)) for batch in batches]

    class Ready(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            return batches[index % DISTINCT]

    return nullcontext(Ready())


@contextmanager
def through_stoker(source: Any, case: Case, steps: Steps, workers: int) -> Iterator[Any]:
    import stoker

    with stoker.Loader(source, batch_size=case.batch_size, workers=workers) as loader:
        yield loader.to_keras()


def torch_loader(source: Any, case: Case, steps: Steps, workers: int) -> AbstractContextManager[Any]:
    from torch.utils.data import DataLoader

    more = {"persistent_workers": True, "prefetch_factor": 2} if workers else {}
    return nullcontext(DataLoader(source, batch_size=case.batch_size, num_workers=workers, **more))


def torch_alone(source: Any, case: Case, steps: Steps, workers: int) -> AbstractContextManager[Any]:
    return torch_loader(source, case, steps, 0)


def grain_workers(source: Any, case: Case, steps: Steps, workers: int) -> AbstractContextManager[Any]:
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain's workers ask for one
    dataset = grain.MapDataset.source(source).batch(case.batch_size)
    read = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    return nullcontext(read.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)))


def grain_alone(source: Any, case: Case, steps: Steps, workers: int) -> AbstractContextManager[Any]:
    import grain

    return nullcontext(grain.MapDataset.source(source).batch(case.batch_size).to_iter_dataset())


DOORS: dict[str, Open] = {
    "memory": memory,
    "stoker": through_stoker,
    "torch_loader": torch_loader,
    "torch_alone": torch_alone,
    "grain_workers": grain_workers,
    "grain_alone": grain_alone,
}


# ── one cell ─────────────────────────────────────────────────────────────────────────────────────
def model_of(kind: str) -> Any:
    """A compiled model of images."""
    from keras import Input, Sequential, layers

    if kind == "light":
        hidden = [layers.Cropping2D(96), layers.Flatten()]
    else:
        hidden = [
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    model = Sequential([Input((224, 224, 3)), *hidden, layers.Dense(CLASSES)])
    from keras.losses import SparseCategoricalCrossentropy

    model.compile("adam", SparseCategoricalCrossentropy(from_logits=True), jit_compile="auto")
    return model


def on_one_core(backend: str) -> None:
    """Let the backend compute in one thread. Called before Keras is imported."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(2)
    elif backend == "torch":
        import torch

        torch.set_num_threads(1)


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step of `fit()`, in each epoch but the first."""
    on_one_core(asked.backend)
    import keras

    case = CASES[asked.case]
    source = Labelled(case.make(asked.steps * case.batch_size))
    begun, epochs = [0.0], []

    def begin(epoch: int, logs: Any) -> None:
        begun[0] = time.perf_counter()

    def end(epoch: int, logs: Any) -> None:
        epochs.append((time.perf_counter() - begun[0]) / asked.steps * 1000)

    watch = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    model = model_of(asked.model)
    with DOORS[asked.contender](source, case, asked.steps, asked.workers) as data:
        history = model.fit(data, epochs=asked.epochs, callbacks=[watch], verbose=0)
    assert len(history.history["loss"]) == asked.epochs
    return {"ms": epochs[1:]}


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────
def run_cell(asked: argparse.Namespace, backend: str, case: str, model: str, contender: str) -> dict[str, Any]:
    """The figures of a cell that runs in a process of its own, or what it said last."""
    command = [sys.executable, "-m", "benchmarks.fit", "--cell", "--backend", backend, "--case", case]
    command += ["--model", model, "--contender", contender, "--workers", str(asked.workers)]
    command += ["--steps", str(asked.steps), "--epochs", str(asked.epochs)]
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": flags}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=asked.timeout)
    record = {"backend": backend, "case": case, "model": model, "contender": contender}
    if done.returncode:
        return record | {"fault": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    return record | json.loads(done.stdout.strip().splitlines()[-1])


def run(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells, round after round; the results are written after each round."""
    records: list[dict[str, Any]] = []
    for turn in range(asked.rounds):
        shift = turn % len(asked.contenders)
        for backend in asked.backends:
            for model in asked.models:
                for case in asked.cases:
                    for contender in asked.contenders[shift:] + asked.contenders[:shift]:
                        if model == "heavy" and contender not in OVER_MEMORY:
                            continue
                        record = run_cell(asked, backend, case, model, contender) | {"round": turn}
                        records.append(record)
                        shown = f"{median(record['ms']):9.2f} ms a step" if "ms" in record else record["fault"]
                        print(f"{turn} {backend:10} {model:5} {case} {contender:13} {shown}", flush=True)
        asked.out.mkdir(parents=True, exist_ok=True)
        data = {"question": "fit", "machine": machine(asked), "records": records}
        (asked.out / "fit.json").write_text(json.dumps(data, indent=1) + "\n")
        (asked.out / "fit.md").write_text(table(data))
        draw(data, asked.out / "fit.png")
    return records


def of(records: list[dict[str, Any]], group: tuple[str, str, str], contender: str) -> dict[int, float]:
    """Milliseconds a step of a contender, by round."""
    return {
        record["round"]: median(record["ms"])
        for record in records
        if (record["backend"], record["model"], record["case"]) == group
        and record["contender"] == contender
        and "ms" in record
    }


def over(these: dict[int, float], those: dict[int, float]) -> Spread | None:
    """The spread of these over those, each ratio taken within a round."""
    return Spread.of(these[turn] / those[turn] for turn in sorted(these.keys() & those.keys()))


def groups(records: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Backend, model and case of each table, in the order in which they ran."""
    return list(dict.fromkeys((record["backend"], record["model"], record["case"]) for record in records))


def text(found: Spread | None, form: str = ".2f") -> str:
    """A median with its least and most."""
    return "–" if found is None else f"{found.middle:{form}} ({found.least:{form}}–{found.most:{form}})"


def table(data: dict[str, Any]) -> str:
    """All groups as Markdown tables."""
    records, its = data["records"], data["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in its["packages"].items())
    rounds = len({record["round"] for record in records})
    parts = [
        "# A step of `fit()` through each door into Keras",
        f"{its['workers']} workers, {its['cores']} cores of {its['cpu']}, Linux {its['kernel']}, "
        f"Python {its['python']}; {packages}; {its['date']}.\n\n"
        f"Medians of {rounds} alternating rounds of {its['epochs']} epochs of {its['steps']} steps, the first of which "
        "does not count; least–most beside them. Ratios are taken within a round. The backend computes in one thread. "
        "*light* does next to nothing with a batch, *heavy* computes for about as long as the workers need for one.",
    ]
    for group in groups(records):
        backend, model, case = group
        lines = ["| contender | ms a step | ÷ memory | ÷ Stoker |", "|---|---:|---:|---:|"]
        least, ours = of(records, group, "memory"), of(records, group, "stoker")
        for name, title in TITLES.items():
            mine = of(records, group, name)
            if mine:
                cells = (text(Spread.of(mine.values())), text(over(mine, least)), text(over(mine, ours)))
                lines.append(f"| {title} | {' | '.join(cells)} |")
        parts.append(f"## {backend}, {model} model, ({case}) {CASES[case].title}\n\n" + "\n".join(lines))
    faults = sorted(
        {f"- {r['backend']}, ({r['case']}) {TITLES[r['contender']]}: {r['fault']}" for r in records if "fault" in r}
    )
    return "\n\n".join([*parts, *(["## What went wrong\n\n" + "\n".join(faults)] if faults else [])]) + "\n"


def draw(data: dict[str, Any], path: Path) -> None:
    """A panel a group, a bar a contender, its spread as a whisker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = data["records"]
    found = groups(records)
    figure, axes = pyplot.subplots(
        -(-len(found) // 2), 2, figsize=(12, 2.2 * -(-len(found) // 2) + 1), squeeze=False, layout="constrained"
    )
    for panel in axes.flat[len(found) :]:
        panel.set_visible(False)
    for panel, group in zip(axes.flat, found, strict=False):
        bars = [(name, bar) for name in TITLES if (bar := Spread.of(of(records, group, name).values())) is not None]
        longest = max((bar.most for _, bar in bars), default=1.0)
        for place, (name, bar) in enumerate(bars):
            whisker = [[bar.middle - bar.least], [bar.most - bar.middle]]
            colour = {"stoker": "#d9480f", "memory": "#adb5bd"}.get(name, "#748ffc")
            panel.barh(place, bar.middle, color=colour, xerr=whisker, ecolor="#495057", capsize=2)
            panel.text(bar.most + longest * 0.02, place, f"{bar.middle:.1f} ms", va="center", fontsize=8)
        panel.set_yticks(range(len(bars)), [TITLES[name].replace("`", "") for name, _ in bars], fontsize=8)
        panel.set_xlim(0, longest * 1.25)
        panel.invert_yaxis()
        panel.set_title(f"{group[0]}, {group[1]} model, ({group[2]}) {CASES[group[2]].title}", fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Milliseconds a step of fit(), less is better", fontsize=12)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def machine(asked: argparse.Namespace) -> dict[str, Any]:
    """The machine, and how often and how long it was measured."""
    return machine_of(asked) | {"steps": asked.steps, "epochs": asked.epochs}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=lambda given: given.split(","), default=["b", "c"])
    parser.add_argument("--backends", type=lambda given: given.split(","), default=["tensorflow", "torch", "jax"])
    parser.add_argument("--models", type=lambda given: given.split(","), default=["light", "heavy"])
    parser.add_argument("--contenders", type=lambda given: given.split(","), default=list(CONTENDERS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="steps of an epoch")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a cell is killed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--cell", action="store_true", help="run one cell here, and print its figures as JSON")
    for one in ("backend", "case", "model", "contender"):
        parser.add_argument(f"--{one}")
    asked = parser.parse_args()
    if asked.cell:
        print(json.dumps(measure(asked)), flush=True)
    else:
        run(asked)


if __name__ == "__main__":
    main()
