"""Keras ``PyDataset`` with worker processes, driven by Keras' own adapter as ``fit()`` drives it.

The adapter forks a ``multiprocessing.Pool``, makes two batches in the trainer to learn the spec, and switches
tf.data's own prefetching off; ``max_queue_size`` is its default of 10 batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from benchmarks.cases import read_rows
from benchmarks.contenders import Job

PACKAGE = "tensorflow-cpu"


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """The source by batch number, as a ``PyDataset`` asks for it."""

    def __init__(self, job: Job) -> None:
        super().__init__(workers=job.workers, use_multiprocessing=True)
        self._source, self._size, self._count = job.source, job.case.batch_size, job.batches

    @property
    def num_batches(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return read_rows(self._source, number * self._size, (number + 1) * self._size)


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    adapter = PyDatasetAdapter(Batches(job))
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    try:
        yield dataset
    finally:
        adapter.on_epoch_end()
