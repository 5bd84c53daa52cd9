"""Grain datasets: a `MapDataset` is read by index; other kinds are refused with the repair."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from stoker.errors import SourceError
from stoker.sources.classes import inherits
from stoker.sources.map_style import MapSource
from stoker.sources.markers import SKIP
from stoker.sources.source import ReadyBatches
from stoker.validation import flag

#: Steps that leave None in place of some elements.
_SPARSE = "FilterMapDataset", "FlatMapMapDataset"


class GrainElements:
    """The elements of a `MapDataset` in one epoch.

    A MapDataset continues beyond its length: there, its shuffles and random maps draw anew, as after `repeat()`. So
    epoch n begins at n times the length. One that `repeat()` made endless has a single epoch.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._step = 0 if _is_endless(dataset) else len(dataset)
        self._first = -self._step

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self._first + index]

    def on_epoch_begin(self) -> None:
        """Move on to the next epoch."""
        self._first += self._step


class GrainSource(MapSource):
    """See `from_grain`."""

    def __init__(self, dataset: Any, batched: bool | None = None) -> None:
        if not inherits(dataset, "MapDataset", "grain"):
            raise _refused(dataset)
        self.step = _present
        super().__init__(GrainElements(dataset), math.inf if _is_endless(dataset) else len(dataset))
        kinds = {type(node).__name__ for node in _nodes(dataset)}
        self.noun, self.names = "a Grain MapDataset", frozenset()
        self.may_skip = not kinds.isdisjoint(_SPARSE)
        self.batched = "BatchMapDataset" in kinds if batched is None else flag("batched", batched)
        self.ready = ReadyBatches(
            "the MapDataset makes batches, with `.batch(...)`",
            "Pass it before `.batch(...)` or, if these batches are your examples, `from_grain(dataset, batched=False)`",
        )


def _present(element: Any) -> Any:
    """The element, or SKIP for None, which stands for one that a filter left out."""
    return SKIP if element is None else element


def _is_endless(dataset: Any) -> bool:
    return len(dataset) >= sys.maxsize


def _nodes(dataset: Any) -> Iterator[Any]:
    """The dataset and all those that it was made of."""
    waiting = [dataset]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += getattr(node, "parents", ())


def _refused(given: Any) -> SourceError:
    """The error for what is not a MapDataset."""
    kind = type(given).__name__
    if inherits(given, "DataLoader", "grain"):
        return SourceError(
            "a Grain DataLoader runs workers of its own. Pass its `data_source` to `stoker.Loader`, its operations as "
            "`transform=`, the batch size of `grain.transforms.Batch` as `batch_size=`, and `shuffle=` and `seed=` "
            "instead of its sampler."
        )
    if inherits(given, "IterDataset", "grain"):
        return SourceError(
            f"a Grain {kind} has no index, so workers cannot share it. Pass the MapDataset that it was made of, before "
            "`to_iter_dataset()`; or `stoker.from_iterable(dataset)`, which iterates it in this process and runs the "
            "transform in the workers."
        )
    return SourceError(f"from_grain needs a grain.MapDataset, got a {kind}. Pass other sources to `stoker.Loader`.")


def from_grain(dataset: Any, *, batched: bool | None = None) -> GrainSource:
    """A source of the elements of a Grain `MapDataset`, read by index in the workers.

    `stoker.Loader(dataset)` is the same as `stoker.Loader(stoker.from_grain(dataset))`. Epoch n of the Loader is the
    n-th repetition of the dataset: what `dataset.repeat()` continues with. Elements that a `filter` leaves out are
    left out. A dataset that `repeat()` makes endless is one endless epoch.

    Args:
        dataset: a `grain.MapDataset`.
        batched: True if its elements are batches, which pass unchanged; omit the Loader's `batch_size`. None for True
            if the dataset was made with `batch(...)`. False to batch such elements again, for example windows of time.

    Raises:
        SourceError: it is a Grain IterDataset or DataLoader; the message says what to pass.

    Example (with Grain installed):

        train = stoker.Loader(grain.MapDataset.source(paths).seed(1).shuffle().map(load), batch_size=32)
    """
    return GrainSource(dataset, batched)
