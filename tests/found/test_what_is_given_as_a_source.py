"""Tables, lists, files and matrices are sources where that has one meaning; else the error names what takes them."""

from __future__ import annotations

import itertools
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker


def first(source: Any, **options: Any) -> Any:
    with stoker.Loader(source, **{"batch_size": 2, "workers": 0, **options}) as loader:
        return next(iter(loader))


def plain(batch: Any) -> Any:
    """With lists for arrays."""
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(map(plain, batch)) if type(batch) in (tuple, list) else tuple(map(plain, batch))
    return batch.tolist()


class Column:
    """A column as pandas and Arrow have it, of which it needs no more."""

    iloc: Any = None

    def __init__(self, values: list[Any], *, arrow: bool = False) -> None:
        self.values, self.arrow = values, arrow

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, label: int) -> Any:
        raise KeyError(label)

    def to_numpy(self, **options: Any) -> Any:
        if self.arrow is not (options == {"zero_copy_only": False}):
            raise TypeError(f"unexpected {options}")
        return np.array(self.values, object if isinstance(self.values[0], str) else None)


class Frame:
    """A DataFrame."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns, self.columns, self.dtypes = columns, list(columns), None

    def __len__(self) -> int:
        return 3

    def __getitem__(self, name: str) -> Column:
        return Column(self._columns[name])


class Table:
    """An Arrow table."""

    num_rows = 3

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns, self.schema = columns, type("Schema", (), {"names": list(columns)})

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, name: str) -> Column:
        raise KeyError(name)

    def column(self, place: int) -> Column:
        return Column(list(self._columns.values())[place], arrow=True)


COLUMNS: dict[str, list[Any]] = {"n": [1, 2, 3], "text": ["x", "y", "z"], "f": [0.5, 1.5, 2.5]}
TAKEN = {"n": [1, 2], "text": [b"x", b"y"], "f": [0.5, 1.5]}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: stoker.from_arrays([1, 2, 3]), [1, 2]),
        (lambda: stoker.from_arrays(["a", "é", "c"]), [b"a", "é".encode()]),
        (lambda: stoker.from_arrays([[1, 2], [3, 4], [5, 6]], ["a", "b", "c"]), ([[1, 2], [3, 4]], [b"a", b"b"])),
        (lambda: stoker.from_arrays({"x": [1.5, 2.0, 3.0], "y": range(3, 9, 2)}), {"x": [1.5, 2.0], "y": [3, 5]}),
        (lambda: stoker.from_arrays(Frame(COLUMNS)), TAKEN),
        (lambda: stoker.from_arrays(Table(COLUMNS)), TAKEN),
        (lambda: stoker.from_arrays(Frame({"a": [1, 2, 3]}), Column([4, 5, 6])), ({"a": [1, 2]}, [4, 5])),
        (lambda: stoker.from_arrays([np.arange(3), np.ones(3)]), ([0, 1], [1.0, 1.0])),
    ],
)
def test_from_arrays_takes_what_has_rows(make: Callable[[], Any], expected: Any, workers: int) -> None:
    assert plain(first(make(), workers=workers)) == expected


def test_lists_of_differing_lengths_are_rows_too() -> None:
    assert first(stoker.from_arrays([[1, 2], [3], []]), collate="pad").tolist() == [[1, 2], [3, 0]]


def test_real_tables_of_pandas_and_arrow() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(COLUMNS, index=[7, 3, 5])
    for table in (frame, pyarrow.table(COLUMNS), dict(frame)):
        assert plain(first(stoker.from_arrays(table))) == TAKEN
    for source in (frame, frame["n"], pyarrow.table(COLUMNS)):
        with pytest.raises(stoker.SourceError, match=r"stoker\.from_arrays\(source\)"):
            stoker.Loader(source)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array"])
def test_rows_of_a_sparse_matrix_are_sparse_examples(kind: str, workers: int) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.array([[0, 2.0, 0], [0, 0, 0], [3.0, 0, 4.0]])
    batch, numbers = first(
        stoker.from_arrays(getattr(sparse, kind)(dense), np.arange(3)), batch_size=3, workers=workers, shuffle=True
    )
    made = np.zeros(batch.dense_shape)
    made[tuple(batch.indices.T)] = batch.values
    assert np.array_equal(made, dense[numbers])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_array_in_an_hdf5_file_is_a_source(workers: int, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"], file["group/text"] = np.arange(12).reshape(4, 3), ["a", "b", "c", "d"]
    with h5py.File(tmp_path / "x.h5", "r") as file:
        assert first(file["x"], workers=workers).tolist() == [[0, 1, 2], [3, 4, 5]]
        for shuffle in (False, True):
            numbers, rows = first(stoker.from_arrays(np.arange(4), file["x"]), workers=workers, shuffle=shuffle)
            assert np.array_equal(rows, np.arange(12).reshape(4, 3)[numbers])
        both = stoker.from_arrays({"x": file["x"], "text": file["group/text"]}, [1, 2, 3, 4])
        assert plain(first(both, workers=workers)) == ({"x": [[0, 1, 2], [3, 4, 5]], "text": [b"a", b"b"]}, [1, 2])
        for source in (file, file["group"]):
            with pytest.raises(stoker.SourceError, match=r"Pass one of them, `file\['x'\]`"):
                stoker.Loader(source, workers=workers)


def test_an_hdf5_file_that_no_worker_can_open_is_told(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(4)
        for source in (file["x"], stoker.from_arrays(file["x"])):
            with pytest.raises(stoker.SourceError, match=r"open for writing .*mode 'r'"):
                stoker.Loader(source, workers=1)
        assert first(file["x"]).tolist() == [0, 1]
    with h5py.File("nowhere", "w", driver="core", backing_store=False) as file:
        file["x"] = np.arange(4)
        with pytest.raises(stoker.SourceError, match="in memory"):
            stoker.Loader(file["x"], workers=1)


class Zarr:
    """An array as zarr has it: without a length."""

    shape, dtype = (4, 3), np.dtype("i4")

    def __getitem__(self, rows: Any) -> Any:
        return np.arange(4, dtype=self.dtype).repeat(3).reshape(4, 3)[rows]


Zarr.__module__ = "zarr.core.array"


def test_an_array_of_zarr_is_a_source() -> None:
    assert first(Zarr()).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert plain(first(stoker.from_arrays(Zarr(), [5, 6, 7, 8]))) == ([[0, 0, 0], [1, 1, 1]], [5, 6])


class Stub:
    """As PyTorch's `Dataset`."""

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")


class IterableDataset(Stub):
    """As PyTorch's; with a length."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        return 3


class Unfinished(Stub):
    def __len__(self) -> int:
        return 3


def generate() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (generate(), r"a generator object.*from_iterable\(function\).*from_generator\(function, shards\)"),
        (zip([1], [2], strict=True), r"an iterator, a zip.*from_iterable"),
        (itertools.count(), r"an iterator, a count.*from_iterable"),
        (generate, r"a function, generate.*from_generator.*from_iterable"),
        (IterableDataset(), r"a IterableDataset, is iterable but.*from_iterable\(source\).*from_generator"),
        (Unfinished(), r"Unfinished, has no `__getitem__`"),
        ({0: 1, 1: 2}, r"a dict .*reads by index.*list\(source\.values\(\)\).*from_arrays\(source\)"),
        (UserDict({0: 1}), r"a UserDict .*list\(source\.values\(\)\)"),
        ({1: 2}.values(), r"a dict_values, is iterable but has no `__getitem__`.*from_iterable"),
        (Frame(COLUMNS), r"a Frame is read by column,.*from_arrays\(source\)"),
        (Table(COLUMNS), r"a Table is read by column,.*from_arrays\(source\)"),
        (Column([1, 2]), r"a Column is read by label.*from_arrays\(source\).*to_numpy"),
    ],
)
def test_what_is_no_source_by_index_is_told_what_takes_it(source: Any, message: str) -> None:
    with pytest.raises(stoker.SourceError, match=message):
        stoker.Loader(source)


def test_what_is_named_takes_it() -> None:
    assert first(stoker.from_iterable(IterableDataset())).tolist() == [0, 1]
    assert first(stoker.from_iterable(generate)).tolist() == [1]
    assert first(list({0: 1, 1: 2}.values())).tolist() == [1, 2]
