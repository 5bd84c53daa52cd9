"""Limit 1: processes that run the user's code alone and write each example to its row of one shared buffer.

Nothing is handed over, nobody waits for anybody, and one buffer is written again and again: no loader
that moves batches from as many worker processes can be quicker, on these cores.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier

import numpy as np
import psutil

from benchmarks.cases import CASES, ENDLESS, Case, Source

_WARM_UP_S = 1.0


def measure(case: Case, workers: int, seconds: float) -> tuple[float, float]:
    """Examples a second of all processes together, and CPU seconds a 1,000 examples."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    results: multiprocessing.SimpleQueue[tuple[int, float, float]] = context.SimpleQueue()
    buffer = SharedMemory(create=True, size=case.batch_bytes)
    try:
        processes = [
            context.Process(target=_work, args=(case.key, buffer.name, worker, workers, seconds, barrier, results))
            for worker in range(workers)
        ]
        for process in processes:
            process.start()
        counted = [results.get() for _ in processes]
        for process in processes:
            process.join()
    finally:
        buffer.close()
        buffer.unlink()
    examples = sum(count for count, _, _ in counted)
    cpu = sum(used for _, _, used in counted)
    return sum(count / elapsed for count, elapsed, _ in counted), 1000 * cpu / examples


def _work(
    key: str,
    buffer_name: str,
    worker: int,
    workers: int,
    seconds: float,
    barrier: Barrier,
    results: multiprocessing.SimpleQueue[tuple[int, float, float]],
) -> None:
    case = CASES[key]
    source = case.make(ENDLESS)
    memory = SharedMemory(name=buffer_name)
    rows = np.ndarray((case.batch_size, *case.shape), case.dtype, memory.buf)
    mine = range(worker * case.batch_size // workers, (worker + 1) * case.batch_size // workers)
    barrier.wait()
    _run(source, rows, mine, _WARM_UP_S)
    barrier.wait()
    cpu = sum(psutil.Process().cpu_times()[:2])
    count, elapsed = _run(source, rows, mine, seconds)
    results.put((count, elapsed, sum(psutil.Process().cpu_times()[:2]) - cpu))
    del rows
    memory.close()


def _run(source: Source, rows: np.ndarray, mine: range, seconds: float) -> tuple[int, float]:
    """Fill this process's rows of one batch after another; the number of examples and the time it took."""
    labels = np.empty(len(rows), np.int64)
    batch = len(rows)
    first = count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for row in mine:
            rows[row], labels[row] = source[first + row]
        count += len(mine)
        first += batch
    return count, elapsed
