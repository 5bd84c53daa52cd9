"""Which source an object given to a Loader becomes. Objects of other libraries are told by their classes' names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker.sources.classes import KERAS, TORCH, inherits
from stoker.sources.grain_dataset import from_grain
from stoker.sources.hugging_face import from_hugging_face
from stoker.sources.keras_dataset import KerasSource
from stoker.sources.map_style import MapSource
from stoker.sources.source import Source
from stoker.sources.stored_arrays import StoredRows, is_stored
from stoker.sources.tf_dataset import from_tf
from stoker.sources.tfds_source import from_tfds
from stoker.sources.torch_loader import from_torch

#: Name of a class, the top-level packages that define it, and what makes a source of its instances. The first row that
#: fits counts: a class may inherit from one of another library.
_KINDS: tuple[tuple[str, tuple[str, ...], Callable[[Any], Source]], ...] = (
    ("PyDataset", KERAS, KerasSource),
    ("Sequence", KERAS, KerasSource),
    ("IterableDataset", ("datasets",), from_hugging_face),
    ("DataLoader", TORCH, from_torch),
    ("IterableDataset", TORCH, from_torch),
    ("Dataset", TORCH, from_torch),  # before Hugging Face's: people have packages of their own called `datasets`
    ("Dataset", ("datasets",), from_hugging_face),
    ("DatasetDict", ("datasets",), from_hugging_face),
    ("IterableDatasetDict", ("datasets",), from_hugging_face),
    ("MapDataset", ("grain",), from_grain),
    ("IterDataset", ("grain",), from_grain),
    ("DataLoader", ("grain",), from_grain),
    ("BaseDataSource", ("tensorflow_datasets",), from_tfds),
    ("DatasetV2", ("tensorflow",), from_tf),
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
