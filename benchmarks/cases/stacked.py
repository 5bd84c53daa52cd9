"""Examples of one shape, ``(x, label)``, each in its row of one array."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.cases.contract import Source

Example = tuple[np.ndarray, int]
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Stacked:
    """See ``Batching``.

    Attributes:
        shape: shape of one example's ``x``.
        dtype: dtype of ``x``; the label is always int64.
    """

    shape: tuple[int, ...]
    dtype: str
    stoker: Literal["stack"] = "stack"
    collate_fn: None = None

    def collate(self, examples: list[Example]) -> Batch:
        xs, labels = zip(*examples, strict=True)
        return np.stack(xs), np.array(labels, np.int64)

    def room(self, rows: int) -> int:
        return self._label_place(rows) + rows * 8

    def writer(self, rows: int, memory: np.ndarray) -> Callable[[Iterable[Example]], Batch]:
        xs = np.ndarray((rows, *self.shape), self.dtype, memory.data)
        labels = np.ndarray(rows, np.int64, memory.data, self._label_place(rows))

        def write(examples: Iterable[Example]) -> Batch:
            for row, (x, label) in enumerate(examples):
                xs[row], labels[row] = x, label
            return xs, labels

        return write

    def signature(self, rows: int) -> Any:
        import tensorflow as tf

        return tf.TensorSpec((rows, *self.shape), self.dtype), tf.TensorSpec((rows,), "int64")

    def delivered(self, dataset: Any) -> Any:
        return dataset

    def labels(self, batch: Any) -> np.ndarray:
        found: np.ndarray = batch[1].numpy()
        return found

    def same(self, batch: Batch, source: Source) -> bool:
        xs, labels = batch
        if labels.dtype != np.int64 or len(xs) != len(labels):
            return False
        wanted = (source[int(label)][0] for label in labels)
        return all(row.dtype == want.dtype and np.array_equal(row, want) for row, want in zip(xs, wanted, strict=True))

    def _label_place(self, rows: int) -> int:
        """Where the labels stand behind the ``xs``, aligned."""
        nbytes = rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        return -(-nbytes // 64) * 64
