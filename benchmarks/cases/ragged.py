"""Documents end to end with row splits: ``tf.RaggedTensor`` at the training step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.cases.contract import Source
from benchmarks.cases.documents import Document
from benchmarks.cases.varying import Batch, Varying, Writer


@dataclass(frozen=True)
class Ragged(Varying):
    """See ``Batching``. No peer has a ragged batch, so values and row splits cross, and become one in ``.map``."""

    stoker: Literal["ragged"] = "ragged"

    def writer(self, rows: int, memory: np.ndarray) -> Writer:
        cells = memory.view(np.int64)

        def write(examples: Iterable[Document]) -> Batch:
            found = list(examples)
            lengths = np.array([example["length"] for example in found], np.int64)
            splits = np.zeros(rows + 1, np.int64)
            np.cumsum(lengths, out=splits[1:])
            values = cells[: splits[-1]]
            np.concatenate([example["ids"] for example in found], out=values)
            return {"ids": values, "splits": splits, "length": lengths}

        return write

    def signature(self, rows: int) -> Any:
        import tensorflow as tf

        sizes = {"ids": None, "splits": rows + 1, "length": rows}
        return {key: tf.TensorSpec((size,), "int64") for key, size in sizes.items()}

    def delivered(self, dataset: Any) -> Any:
        import tensorflow as tf

        def join(batch: dict[str, Any]) -> dict[str, Any]:
            ids = tf.RaggedTensor.from_row_splits(batch["ids"], batch["splits"], validate=False)
            return {"ids": ids, "length": batch["length"]}

        return dataset.map(join)

    def labels(self, batch: Any) -> np.ndarray:
        ids = batch["ids"]
        firsts = np.asarray(memoryview(ids.row_splits))[:-1]
        return np.asarray(memoryview(ids.flat_values))[firsts]

    def same(self, batch: Batch, source: Source) -> bool:
        """Here ``ids`` is an array of arrays, as ``RaggedTensor.numpy()`` gives it."""
        wanted = [source[int(row[0])] for row in batch["ids"]]
        return (
            batch.keys() == wanted[0].keys()
            and batch["length"].tolist() == [want["length"] for want in wanted]
            and all(
                row.dtype == np.int64 and np.array_equal(row, want["ids"])
                for row, want in zip(batch["ids"], wanted, strict=True)
            )
        )
