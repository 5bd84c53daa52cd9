"""What the two batchings of documents share: collation in new memory is a writer's first batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.cases.documents import LONGEST, Document

Batch = dict[str, np.ndarray]
Writer = Callable[[Iterable[Document]], Batch]


class Varying(ABC):
    """The part of a ``Batching`` that follows from its writer."""

    @property
    def collate_fn(self) -> Callable[[list[Document]], Batch]:
        return self.collate

    def collate(self, examples: list[Document]) -> Batch:
        rows = len(examples)
        return self.writer(rows, np.empty(self.room(rows), np.uint8))(examples)

    def room(self, rows: int) -> int:
        return rows * LONGEST * 8

    @abstractmethod
    def writer(self, rows: int, memory: np.ndarray) -> Writer: ...
