"""``multiprocessing.Pool.imap`` over the numbers of batches, which come back pickled through a pipe.

The workers are forks, which have the source without pickling. ``imap`` runs ahead without bounds, so the numbers are
held back until the trainer has taken earlier batches.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders import PREFETCH, Job, into_tf

PACKAGE = ""
_job: Job
"""What a worker process reads; set once in each."""


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    ahead = threading.Semaphore(job.workers * PREFETCH)
    closing = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(job.batches):
            ahead.acquire()
            if closing.is_set():
                return
            yield number

    def batches() -> Iterator[Any]:
        for batch in pool.imap(_read, numbers()):
            ahead.release()
            yield batch

    with multiprocessing.get_context("fork").Pool(job.workers, _begin, (job,)) as pool:
        yield into_tf(job, batches)
        closing.set()
        ahead.release()  # the pool waits for its thread that asks for numbers


def _begin(job: Job) -> None:
    global _job
    _job = job


def _read(number: int) -> Any:
    return _job.case.read(_job.source, number)
