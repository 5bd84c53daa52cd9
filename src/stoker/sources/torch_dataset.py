"""PyTorch's map-style datasets."""

from __future__ import annotations

from typing import Any

from stoker.sources.map_style import MapSource
from stoker.sources.stored_arrays import StoredRows, is_stored


class TorchSource(MapSource):
    """A map-style dataset whose examples are joined as by a DataLoader. See `from_torch`."""

    noun = "a PyTorch Dataset"
    as_torch = True

    def __init__(self, dataset: Any) -> None:
        super().__init__(StoredRows(dataset) if is_stored(dataset) else dataset)
