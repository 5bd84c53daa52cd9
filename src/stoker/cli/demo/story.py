"""The demo, step by step."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from rich.console import Console

from stoker.runtime.cpus import usable_cpus

from . import picture
from .digits import Digits, Split, augment, enlarge, load, shrink
from .feeds import many_processes, one_process, steps_per_epoch
from .model import build
from .race import Contender, Result
from .screen import Screen, table

SEED = 7
PROMISED = 0.97
"""The accuracy on held-out digits that a full run must reach."""


def run(epochs: int, workers: int | None, out: Path) -> list[Result]:
    """Runs both contenders, prints the table and writes the picture.

    Args:
        epochs: Epochs per contender.
        workers: Stoker's workers; None for one per CPU.
        out: The picture to write.

    Returns:
        The results, one process first, then Stoker.
    """
    console = Console()
    split = load()
    cost = milliseconds_an_example(split.train)
    console.print(
        f"[bold]{len(split.train):,} handwritten digits[/], each rotated, shifted, scaled and warped "
        f"afresh in every epoch by {cost:.1f} ms of plain Python. {len(split.held_out)} more are held out for testing.",
        highlight=False,
    )
    with console.status("TensorFlow is starting"):
        start_tensorflow()
    results = compete(console, split, epochs, workers or usable_cpus())
    console.print()
    console.print(table(results))
    explain(console, results, epochs)
    picture.save(out, results, split.train, cost, SEED)
    console.print(f"See [bold]{out}[/].", highlight=False)
    return results


def compete(console: Console, split: Split, epochs: int, workers: int) -> list[Result]:
    """Trains the same model twice, from the same initial weights, alternating between the two after each epoch.

    They alternate so that other load on the machine slows both alike.
    """
    steps = steps_per_epoch(split.train)
    crew = f"{workers} worker{'s' if workers > 1 else ''}"
    with many_processes(split.train, SEED, workers) as loader, Screen(console, epochs, steps) as screen:
        contenders = [
            Contender(name, how, build(SEED, epochs * steps), dataset, screen.add_bar(name))
            for name, how, dataset in (
                ("from_generator", "one process", one_process(split.train, SEED)),
                ("stoker.Loader", crew, loader.to_tf()),
            )
        ]
        for _ in range(epochs):
            for contender in contenders:
                contender.train_epoch()
        return [contender.result(scanned(split.held_out)) for contender in contenders]


def explain(console: Console, results: list[Result], epochs: int) -> None:
    """Explains, below the table, how its figures were measured and what they amount to."""
    alone, many = results
    first = " without the first, in which Keras compiles and workers start" if epochs > 1 else ""
    console.print(
        f"[dim]They alternate, one epoch each. Times are of the median epoch{first}. Waiting is the time that "
        "fit() is blocked for its next batch, measured around next(iterator) in its train function, the same way "
        "for both. Held-out digits are not augmented.[/]",
        highlight=False,
    )
    ratio = f"{many.rate / alone.rate:.1f}\N{MULTIPLICATION SIGN}"
    console.print(f"\nStoker feeds fit() [bold]{ratio}[/] as fast.", highlight=False)
    for result in results:
        if result.accuracy < PROMISED:
            console.print(
                f"[yellow]{result.name} reached {result.accuracy:.1%} on held-out digits, below the "
                f"{PROMISED:.0%} of a full run: too few epochs ({epochs}), or a bug.[/]",
                highlight=False,
            )


def start_tensorflow() -> None:
    """Imports Keras on TensorFlow, without the log lines that TensorFlow prints at startup.

    Some are written straight to descriptor 2 before TensorFlow reads its own setting, so that is redirected to nowhere.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def milliseconds_an_example(digits: Digits, times: int = 40) -> float:
    """The median CPU time of an augmentation in this process, after a warm-up that pays for imports."""
    rng = np.random.default_rng(SEED)
    augment(digits[0], rng)
    costs = []
    for index in range(times):
        begun = process_time()
        augment(digits[index], rng)
        costs.append(process_time() - begun)
    return median(costs) * 1e3


def scanned(digits: Digits) -> tuple[Any, Any]:
    """All digits in the form of the model's input, without augmentation, and their labels."""
    return np.stack([shrink(enlarge(image)) for image in digits.images]), digits.labels
