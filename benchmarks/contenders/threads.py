"""Threads of the trainer's process: ``Dataset.map`` of a ``numpy_function`` that reads one example, then ``batch``.

What people write who do not want processes. It starts at once, and code that releases the GIL, such as a decoder,
runs in as many threads as there are workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.contenders import PREFETCH, Job

PACKAGE = "tensorflow-cpu"


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    rows = job.case.batch_size
    specs = job.case.batching.signature(rows)

    def read(index: Any) -> Any:
        x, label = tf.numpy_function(at, [index], [spec.dtype for spec in specs])
        return tf.ensure_shape(x, specs[0].shape[1:]), tf.ensure_shape(label, ())

    def at(index: np.int64) -> tuple[np.ndarray, np.int64]:
        x, label = job.source[int(index)]
        return x, np.int64(label)

    examples = tf.data.Dataset.range(job.batches * rows).map(read, num_parallel_calls=job.workers)
    yield examples.batch(rows, drop_remainder=True).prefetch(PREFETCH)
