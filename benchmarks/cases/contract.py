"""What a case is made of: a source that a user could have written, and how its examples are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

ENDLESS = 100_000_000
"""Examples in a source that is read for a time, not to its end."""


class Source(Protocol):
    """What every loader here can read: a map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Batching(Protocol):
    """How examples become a batch, how TensorFlow is to get it, and how it is checked there."""

    @property
    def stoker(self) -> Literal["stack", "pad", "ragged"]:
        """What ``stoker.Loader(collate=…)`` is told."""

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """What a peer is told; None where it is to stack by itself, for which it has ways that users have not."""

    def collate(self, examples: list[Any]) -> Any:
        """A batch in new arrays, as the users of every peer write it: a tuple or a dict."""

    def room(self, rows: int) -> int:
        """Bytes that the arrays of the largest batch of so many rows take."""

    def writer(self, rows: int, memory: np.ndarray) -> Callable[[Iterable[Any]], Any]:
        """A ``collate`` for so many rows that writes each batch over the one before it, in ``room(rows)`` bytes."""

    def signature(self, rows: int) -> Any:
        """The ``tf.TensorSpec`` of each part of a collated batch."""

    def delivered(self, dataset: Any) -> Any:
        """A ``tf.data.Dataset`` of collated batches as one of the batches that the training step wants."""

    def labels(self, batch: Any) -> np.ndarray:
        """The number of each example of a delivered batch, copied; it is read in the timed window."""

    def same(self, batch: Any, source: Source) -> bool:
        """Whether each row of a delivered batch, as NumPy arrays, is what the source gives for that row's number."""


@dataclass(frozen=True)
class Case:
    """One kind of data and how it is batched.

    Attributes:
        key: the letter used on the command line and in the results.
        title: one line for tables and charts.
        batch_size: examples a batch.
        batching: how examples become a batch.
        make: makes a source of the given number of examples.
        check_batches: batches in the short epoch that is checked example by example.
    """

    key: str
    title: str
    batch_size: int
    batching: Batching
    make: Callable[[int], Source]
    check_batches: int = 6

    def read(self, source: Source, number: int) -> Any:
        """The batch of that number, read and collated in this process."""
        start = number * self.batch_size
        return self.batching.collate([source[index] for index in range(start, start + self.batch_size)])
