"""Which kind of source an object is, told without importing the library that it belongs to."""

from __future__ import annotations

from typing import Any

from stoker.sources.map_style import MapSource
from stoker.sources.source import Source
from stoker.sources.stored_arrays import StoredRows, is_stored
from stoker.sources.torch_dataset import torch_kind
from stoker.sources.torch_loader import from_torch


def source_of(given: Any) -> Source:
    """The source that was given to a Loader: one of Stoker's, or that of an object of another library."""
    if isinstance(given, Source):
        return given
    if torch_kind(given) is not None:
        return from_torch(given)
    return MapSource(StoredRows(given) if is_stored(given) else given)
