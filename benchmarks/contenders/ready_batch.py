"""Limit 2: one batch, ready and aligned so that TensorFlow takes it without a copy, through ``from_generator``.

What is left is the price of the hand-over itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.cases import read_rows
from benchmarks.contenders import Job, into_tf

PACKAGE = ""
_ALIGNMENT = 64


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    batch = tuple(_aligned(part) for part in read_rows(job.source, 0, job.case.batch_size))

    def batches() -> Iterator[tuple[Any, Any]]:
        for _ in range(job.batches):
            yield batch[0], batch[1]

    yield into_tf(job, batches)


def _aligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % _ALIGNMENT
    copy = memory[skip : skip + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
