"""SPDL's ``iterate_in_subprocess``, its batches handed over through its pool of shared-memory segments.

A subprocess of SPDL is one stream, so each of ``workers`` subprocesses makes every ``workers``-th batch and the trainer
takes them in turn. SPDL forks. A batch that TensorFlow still holds keeps its segment, and a pool without a
free segment stops for good: the pool has room for what tf.data holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

from benchmarks.cases import Case, Source
from benchmarks.contenders import PREFETCH, Job, into_tf

PACKAGE = "spdl"
_BUFFER = 2
_SEGMENTS = _BUFFER + PREFETCH + 1
_SLACK = 65536  # room for the labels and alignment


@dataclass
class Stripe:
    """Every ``step``-th batch of the source, written into one array that is used again.

    SPDL copies a batch into its segment before it asks for the next, so one array will do; a fresh array a batch
    would cost page faults on top.
    """

    source: Source
    case: Case
    first: int
    step: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = self.case.batch_size
        xs = np.empty((size, *self.case.shape), self.case.dtype)
        labels = np.empty(size, np.int64)
        for number in range(self.first, len(self.source) // size, self.step):
            for row in range(size):
                xs[row], labels[row] = self.source[number * size + row]
            yield xs, labels


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    streams = [
        iterate_in_subprocess(
            partial(Stripe, job.source, job.case, first, job.workers),
            buffer_size=_BUFFER,
            arena=SharedMemorySegmentPool(job.case.batch_bytes + _SLACK, _SEGMENTS),
        )
        for first in range(job.workers)
    ]
    yield into_tf(job, lambda: _in_turn([iter(stream) for stream in streams]))
    for stream in streams:
        stream._shutdown()  # type: ignore[attr-defined]  # it has no public way to end before collection


def _in_turn(streams: list[Iterator[Any]]) -> Iterator[Any]:
    while True:
        for stream in streams:
            batch = next(stream, None)
            if batch is None:
                return
            yield batch
