"""Keras datasets, whose elements are already batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

from stoker.errors import SourceError
from stoker.sources.map_style import MapSource, count_of
from stoker.sources.mistaken import is_stub
from stoker.sources.source import ReadyBatches

log = logging.getLogger("stoker")

#: How Keras itself would run a dataset: its attributes, their defaults, and the Loader's own arguments instead.
_OF_KERAS = {"_workers": 1, "_use_multiprocessing": False, "_max_queue_size": 10}


class KerasSource(MapSource):
    """A `keras.utils.PyDataset`, or a `Sequence` of older Keras: batches by index.

    It is endless if `num_batches` is None, or if it has neither `num_batches` nor `__len__`, as for Keras.
    """

    batched = True

    def __init__(self, dataset: Any) -> None:
        kind = type(dataset).__name__
        if is_stub(type(dataset).__getitem__):
            raise SourceError(
                f"the source, a {kind}, has no `__getitem__`. Add `__getitem__(self, index)`, which returns one batch."
            )
        _refuse_shuffled_iterator(dataset)
        super().__init__(dataset, _batches(dataset))
        self.noun = f"a {kind}"
        self.ready = ReadyBatches(
            f"{kind} is a Keras dataset: each item is a batch, and len() counts batches",
            "To batch by example, pass an object that is not a PyDataset and returns one example",
        )
        if unused := list(_unused(dataset)):
            log.warning(
                "%s of this %s: not used. The Loader's own `workers`, which are processes, and `prefetch` apply.",
                " and ".join(unused),
                kind,
            )


def _refuse_shuffled_iterator(dataset: Any) -> None:
    """Raise `SourceError` for an iterator of Keras' ImageDataGenerator that shuffles."""
    is_one = any(
        ".preprocessing.image" in kind.__module__ and kind.__name__ == "Iterator" for kind in type(dataset).__mro__
    )
    if is_one and getattr(dataset, "shuffle", False):
        raise SourceError(
            f"a {type(dataset).__name__} shuffles while it is read, so each worker would read another order. Make it "
            "with shuffle=False, and pass shuffle=True to the Loader, which shuffles the order of its batches."
        )


def _batches(dataset: Any) -> float:
    """Number of batches in an epoch; `math.inf` if the dataset never ends."""
    try:
        return math.inf if getattr(dataset, "num_batches", 0) is None else count_of(dataset)
    except NotImplementedError:  # Keras' own property, where there is no `__len__`
        return math.inf


def _unused(dataset: Any) -> Iterator[str]:
    """The attributes that were set to something else than their default. Those of older Keras have none."""
    values = getattr(dataset, "__dict__", {})
    for name, default in _OF_KERAS.items():
        if values.get(name, default) != default:
            yield f"{name.removeprefix('_')}={values[name]!r}"
