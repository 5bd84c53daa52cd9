"""Arrays in HDF5 and zarr files as sources: read by rows, and reopened in each worker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stoker.errors import SourceError


def is_stored(value: Any) -> bool:
    """True for an h5py or zarr array. Imports neither."""
    kind = type(value)
    return kind.__module__.partition(".")[0] in ("h5py", "zarr") and hasattr(kind, "shape") and hasattr(kind, "dtype")


class StoredRows(Sequence[Any]):
    """The rows of an array in a file. Reads only the rows that are requested.

    h5py objects cannot be pickled. The names of the file and of the array are sent instead, and a worker opens the file
    when it reads its first row.

    Raises:
        SourceError: the file is closed, or the array has no rows.
    """

    def __init__(self, array: Any) -> None:
        try:
            self.shape: tuple[int, ...] = array.shape
        except (KeyError, ValueError):  # raised by h5py
            raise SourceError("the source is an array of a closed HDF5 file. Keep the file open.") from None
        if not self.shape:
            raise SourceError(f"the source has no rows: it is a {type(array).__name__} of shape ().")
        self._array: Any = array
        self._where: tuple[str, str] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if self._array is None:
            import h5py  # type: ignore[import-untyped]  # h5py has no types

            assert self._where is not None
            file, name = self._where
            self._array = h5py.File(file, "r")[name]
        return self._array[index]

    def check(self) -> None:
        """Raise `SourceError` if workers cannot open the file."""
        if not self._is_hdf5():
            return
        file, name = self._array.file, self._array.name
        if name is None or not Path(file.filename).exists():
            raise SourceError(
                f"the HDF5 file {file.filename!r} is in memory, where no worker can open it. Write it to a disk, or "
                "pass workers=0."
            )
        if file.mode != "r":
            raise SourceError(
                f"the HDF5 file {file.filename!r} is open for writing (mode {file.mode!r}), so no worker can read it. "
                "Open it with mode 'r', or pass workers=0."
            )

    def _is_hdf5(self) -> bool:
        return type(self._array).__module__.partition(".")[0] == "h5py"

    def __getstate__(self) -> dict[str, Any]:
        if not self._is_hdf5():
            return self.__dict__
        where = str(Path(self._array.file.filename).absolute()), self._array.name
        return {"shape": self.shape, "_array": None, "_where": where}
