"""One cell, in its own process: one contender on one case, measured from the inside.

Speaks to the runner in lines of JSON on stdout: ``{"phase": …}`` when a phase begins, ``{"result": …}`` when the
figures are there, ``{"right": …}`` when what came has been checked. By hand::

    python -m benchmarks.cell --contender spdl --case a
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import user_code
from benchmarks.cases import CASES, ENDLESS, Case
from benchmarks.contenders import LIMIT, LIMITS, Driver, Job, load
from benchmarks.memory import process_pss


@dataclass(frozen=True)
class Timing:
    """How long each phase lasts.

    Attributes:
        warm_s: reading before the timed window, so that buffers stand as they do in the long run.
        window_s: the timed window; memory is not looked at in it.
        after_s: reading after the window, in which memory is looked at again.
        pause_s: standing still with the loader open, as in a long training step, so that every queue fills up.
    """

    warm_s: float
    window_s: float
    after_s: float
    pause_s: float


def tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    options = _options()
    case = CASES[options.case]
    timing = Timing(options.warm, options.window, options.after, options.pause)
    if options.contender == LIMIT:
        rate, cpu = user_code.measure(case, options.workers, timing.window_s)
        tell(result={"examples_per_s": rate, "cpu_s_per_1000": cpu})
        return
    driver = load(options.contender)
    _warm_tensorflow()
    tell(result=measure(driver, Job(case, case.make(ENDLESS), options.workers), timing))
    if options.contender not in LIMITS:
        fault = check(driver, case, options.workers)
        tell(right=not fault, fault=fault)


def measure(driver: Driver, job: Job, timing: Timing) -> dict[str, Any]:
    """Open the loader and read it through all phases; see :class:`Timing`."""
    from benchmarks.reading import read_for, window_fault

    batching = job.case.batching
    gc.collect()
    baseline = process_pss(os.getpid())
    tell(phase="first")
    start = time.perf_counter()
    with driver.feed(job) as dataset:
        batches: Iterator[Any] = iter(dataset)
        next(batches)
        first_batch_s = time.perf_counter() - start
        tell(phase="reading")
        read_for(batches, batching, timing.warm_s, at_least=8 if timing.window_s else 3)
        result: dict[str, Any] = {"first_batch_s": first_batch_s, "baseline_bytes": baseline}
        if timing.window_s:
            tell(phase="window")
            window = read_for(batches, batching, timing.window_s, at_least=4)
            tell(phase="reading")
            read_for(batches, batching, timing.after_s)
            result |= {
                "examples_per_s": len(window.labels) / window.seconds,
                "cpu_s_per_1000": 1000 * window.cpu_seconds / len(window.labels),
                "window_s": window.seconds,
                "window_fault": window_fault(window, batching, job.source),
            }
            del window
        if timing.pause_s:
            tell(phase="paused")
            time.sleep(timing.pause_s)
        tell(phase="closing")
        del batches, dataset
        gc.collect()
    return result


def check(driver: Driver, case: Case, workers: int) -> str:
    """Read a short epoch to its end; what is wrong with it, or an empty string."""
    from benchmarks.reading import epoch_fault

    source = case.make(case.batch_size * case.check_batches)
    with driver.feed(Job(case, source, workers)) as dataset:
        return epoch_fault(iter(dataset), case.batching, source)


def _warm_tensorflow() -> None:
    """Start TensorFlow before any clock runs, as a model that is built already has.

    Not with ``from_generator``: at its first element TensorFlow 2.21 on Python 3.11 calls
    ``mallopt(M_MMAP_THRESHOLD, 128 KiB)``, and from then on each larger array that user code makes in this process,
    or in one forked from it, is mapped and faulted in anew. A contender that forks early must keep its advantage.
    """
    import tensorflow as tf

    for _ in tf.data.Dataset.range(2):
        pass


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run one cell and print its figures as JSON.")
    parser.add_argument("--contender", required=True)
    parser.add_argument("--case", required=True, choices=CASES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm", type=float, default=1.5, help="seconds before the timed window")
    parser.add_argument("--window", type=float, default=4.0, help="seconds of the timed window")
    parser.add_argument("--after", type=float, default=1.0, help="seconds of reading after it")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of standing still at the end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
