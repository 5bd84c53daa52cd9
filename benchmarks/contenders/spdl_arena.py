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
_SLACK = 65536  # room for alignment


@dataclass
class Stripe:
    """Every ``step``-th batch of the source, written into memory that is used again.

    SPDL copies a batch into its segment before it asks for the next, so the memory of one will do; fresh memory a
    batch would cost page faults on top. Strings it pickles.
    """

    source: Source
    case: Case
    first: int
    step: int

    def __iter__(self) -> Iterator[Any]:
        size = self.case.batch_size
        write = self.case.batching.writer(size, np.empty(self.case.batching.room(size), np.uint8))
        for number in range(self.first, len(self.source) // size, self.step):
            yield write(map(self.source.__getitem__, range(number * size, (number + 1) * size)))


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    room = job.case.batching.room(job.case.batch_size)
    streams = [
        iterate_in_subprocess(
            partial(Stripe, job.source, job.case, first, job.workers),
            buffer_size=_BUFFER,
            arena=SharedMemorySegmentPool(room + _SLACK, _SEGMENTS),
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
