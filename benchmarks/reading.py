"""Reading a ``tf.data.Dataset`` against the clock, and checking what came out of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from benchmarks.cases import Batching, Source


@dataclass(frozen=True)
class Window:
    """What was read in a stretch of time.

    Attributes:
        seconds: how long it took, in whole batches.
        cpu_seconds: CPU time of this process and all below it, user and system.
        labels: the label of each example, in the order of arrival.
        last: the last batch as NumPy arrays, copied. (The tensors themselves would keep a slot of the loader's, and
            SPDL's pool stops for good while one is kept.)
    """

    seconds: float
    cpu_seconds: float
    labels: np.ndarray
    last: Any


def read_for(batches: Iterator[Any], batching: Batching, seconds: float, at_least: int = 1) -> Window:
    """Read for so many seconds and at least so many batches, touching labels only."""
    labels: list[np.ndarray] = []
    cpu = tree_cpu()
    start = time.perf_counter()
    while True:
        batch = next(batches)
        labels.append(batching.labels(batch))
        elapsed = time.perf_counter() - start
        if elapsed >= seconds and len(labels) >= at_least:
            cpu = tree_cpu() - cpu
            return Window(elapsed, cpu, np.concatenate(labels), in_numpy(batch))


def in_numpy(batch: Any) -> Any:
    """A batch of tensors as one of NumPy arrays, copied."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)


def tree_cpu() -> float:
    """CPU seconds used so far by this process, its descendants, and those of them that were waited for."""
    this = psutil.Process()
    total = 0.0
    for process in [this, *this.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def window_fault(window: Window, batching: Batching, source: Source) -> str:
    """What is wrong with what was read, or an empty string: an example that came twice, the last batch's content."""
    if len(np.unique(window.labels)) != len(window.labels):
        return "an example came twice"
    if not batching.same(window.last, source):
        return "a batch of the timed window has wrong content"
    return ""


def epoch_fault(batches: Iterator[Any], batching: Batching, source: Source) -> str:
    """What is wrong with a whole epoch, or an empty string: each example once, each with its own content."""
    labels: list[np.ndarray] = []
    for batch in batches:
        if not batching.same(in_numpy(batch), source):
            return "a batch has wrong content"
        labels.append(batching.labels(batch))
    if not np.array_equal(np.sort(np.concatenate(labels)), np.arange(len(source))):
        return "not every example came once"
    return ""
