"""Which source an object given to a Loader becomes. Objects of other libraries are told by their classes' names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker.sources.classes import KERAS, TORCH, inherits
from stoker.sources.keras_dataset import KerasSource
from stoker.sources.map_style import MapSource
from stoker.sources.source import Source
from stoker.sources.stored_arrays import StoredRows, is_stored
from stoker.sources.torch_loader import from_torch

#: Name of a class, the top-level packages that define it, and what makes a source of its instances. The first row that
#: fits counts: a class may inherit from one of another library.
_KINDS: tuple[tuple[str, tuple[str, ...], Callable[[Any], Source]], ...] = (
    ("PyDataset", KERAS, KerasSource),
    ("Sequence", KERAS, KerasSource),
    ("DataLoader", TORCH, from_torch),
    ("IterableDataset", TORCH, from_torch),
    ("Dataset", TORCH, from_torch),
)


def source_of(given: Any) -> Source:
    """The source that was given to a Loader: one of Stoker's, one of a library's, or an object read by index."""
    if isinstance(given, Source):
        return given
    if is_stored(given):
        return MapSource(StoredRows(given))
    for name, packages, make in _KINDS:
        if inherits(given, name, *packages):
            return make(given)
    return MapSource(given)
