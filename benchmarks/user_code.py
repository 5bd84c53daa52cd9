"""Limit 1: processes that run the user's code alone and write each example to its place in one shared buffer.

Nothing is handed over, nobody waits for anybody, and one buffer is written again and again: no loader
that moves batches from as many worker processes can be quicker, on these cores.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import psutil

from benchmarks.cases import CASES, ENDLESS, Case, Source

_WARM_UP_S = 1.0


def measure(case: Case, workers: int, seconds: float) -> tuple[float, float]:
    """Examples a second of all processes together, and CPU seconds a 1,000 examples."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    results: multiprocessing.SimpleQueue[tuple[int, float, float]] = context.SimpleQueue()
    share = -(-case.batch_size // workers)
    buffer = SharedMemory(create=True, size=workers * _room(case, share))
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
    mine = range(worker * case.batch_size // workers, (worker + 1) * case.batch_size // workers)
    room = _room(case, -(-case.batch_size // workers))
    write = case.batching.writer(len(mine), np.ndarray(room, np.uint8, memory.buf, worker * room))
    barrier.wait()
    _run(source, write, mine, case.batch_size, _WARM_UP_S)
    barrier.wait()
    cpu = sum(psutil.Process().cpu_times()[:2])
    count, elapsed = _run(source, write, mine, case.batch_size, seconds)
    results.put((count, elapsed, sum(psutil.Process().cpu_times()[:2]) - cpu))
    del write
    memory.close()


def _run(
    source: Source, write: Callable[[Iterable[Any]], Any], mine: range, batch: int, seconds: float
) -> tuple[int, float]:
    """Write this process's share of one batch after another; the number of examples and the time it took."""
    first = count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        write(map(source.__getitem__, range(first + mine.start, first + mine.stop)))
        count += len(mine)
        first += batch
    return count, elapsed


def _room(case: Case, rows: int) -> int:
    """Bytes of the buffer that a process with so many rows has, aligned."""
    return -(-case.batching.room(rows) // 64) * 64
