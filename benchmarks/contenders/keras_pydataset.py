"""Keras ``PyDataset`` with worker processes, driven by Keras' own adapter as ``fit()`` drives it.

The adapter forks a ``multiprocessing.Pool``, makes two batches in the trainer to learn the spec, and switches
tf.data's own prefetching off; ``max_queue_size`` is its default of 10 batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from benchmarks.contenders import Job

PACKAGE = "tensorflow-cpu"


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """The source by batch number, as a ``PyDataset`` asks for it."""

    def __init__(self, job: Job) -> None:
        super().__init__(workers=job.workers, use_multiprocessing=True)
        self._case, self._source, self._count = job.case, job.source, job.batches

    @property
    def num_batches(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        return self._case.read(self._source, number)


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    adapter = PyDatasetAdapter(Batches(job))
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    try:
        yield dataset
    finally:
        adapter.on_epoch_end()
