"""PyTorch's data objects, recognised without importing PyTorch, and its map-style datasets."""

from __future__ import annotations

from typing import Any

from stoker.sources.map_style import MapSource
from stoker.sources.stored_arrays import StoredRows, is_stored

#: The classes that are recognised, each before its own base class.
_KINDS = (
    ("torch.utils.data.dataloader", "DataLoader"),
    ("torch.utils.data.dataset", "IterableDataset"),
    ("torch.utils.data.dataset", "Dataset"),
)


def torch_kind(given: Any) -> str | None:
    """The name of PyTorch's class of which this is an instance: DataLoader, IterableDataset or Dataset; else None."""
    bases = {(kind.__module__, kind.__name__) for kind in type(given).__mro__}
    return next((name for module, name in _KINDS if (module, name) in bases), None)


class TorchSource(MapSource):
    """A map-style dataset whose examples are joined as by a DataLoader. See `from_torch`."""

    noun = "a PyTorch Dataset"
    as_torch = True

    def __init__(self, dataset: Any) -> None:
        super().__init__(StoredRows(dataset) if is_stored(dataset) else dataset)
