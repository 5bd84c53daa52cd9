"""Documents as one array, filled up with 0 to the longest of the batch: what ``padded_batch`` of tf.data makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.cases.contract import Source
from benchmarks.cases.documents import Document
from benchmarks.cases.varying import Batch, Varying, Writer


@dataclass(frozen=True)
class Padded(Varying):
    """See ``Batching``. A batch is ``{"ids": int64 of (rows, longest), "length": int64 of (rows,)}``.

    Attributes:
        text: what a worker makes of ``"text"``, or None if there is none. ``"bytes"`` of each ``str`` takes it a fifth
            of the time that it saves the trainer, of which TensorFlow would ask the same. ``"str"`` is what people
            write, ``np.array(texts)``: an array of fixed width, which crosses like one of numbers.
    """

    text: Literal["bytes", "str"] | None = None
    stoker: Literal["pad"] = "pad"

    def writer(self, rows: int, memory: np.ndarray) -> Writer:
        cells = memory.view(np.int64)

        def write(examples: Iterable[Document]) -> Batch:
            found = list(examples)
            lengths = [example["length"] for example in found]
            longest = max(lengths)
            ids = cells[: rows * longest].reshape(rows, longest)
            for row, (example, length) in enumerate(zip(found, lengths, strict=True)):
                ids[row, :length] = example["ids"]
                ids[row, length:] = 0
            batch = {"ids": ids, "length": np.array(lengths, np.int64)}
            if self.text == "bytes":
                batch["text"] = np.array([example["text"].encode() for example in found], object)
            elif self.text == "str":
                batch["text"] = np.array([example["text"] for example in found])
            return batch

        return write

    def signature(self, rows: int) -> Any:
        import tensorflow as tf

        spec = {"ids": tf.TensorSpec((rows, None), "int64"), "length": tf.TensorSpec((rows,), "int64")}
        return spec | {"text": tf.TensorSpec((rows,), "string")} if self.text else spec

    def delivered(self, dataset: Any) -> Any:
        return dataset

    def labels(self, batch: Any) -> np.ndarray:
        return np.asarray(memoryview(batch["ids"]))[:, 0].copy()

    def same(self, batch: Batch, source: Source) -> bool:
        ids = batch["ids"]
        wanted = [source[int(label)] for label in ids[:, 0]]
        lengths = [want["length"] for want in wanted]
        padded = np.zeros((len(ids), max(lengths)), np.int64)
        for row, want in zip(padded, wanted, strict=True):
            row[: want["length"]] = want["ids"]
        return (
            batch.keys() == wanted[0].keys()
            and ids.dtype == np.int64
            and np.array_equal(ids, padded)
            and batch["length"].tolist() == lengths
            and (not self.text or batch["text"].tolist() == [want["text"].encode() for want in wanted])
        )
