"""Writes examples into the rows of a slot: each value is checked, then copied once to its place.

This is Stoker's innermost loop. An example is written as soon as it is made, before user code continues. User code may
reuse the same arrays for the next example, and large examples should be freed immediately.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from numpy import ndarray

from stoker.sources.markers import SKIP, Many
from stoker.structure.foreign import plain_torch
from stoker.structure.forms import Misfit
from stoker.structure.leaf import Leaf, fixed_shape
from stoker.structure.spec import Spec
from stoker.structure.values import PYTHON_NUMBERS
from stoker.worker.batching.fitting import MisfitAt, Uneven, fitting

if TYPE_CHECKING:
    from stoker.worker.batching.fork_guard import ForkGuard

#: Maximum rows per batch for which one view per row is cached. Creating a view costs as much as writing 100 floats.
_VIEWS = 1024
#: Codes of the dtypes that a `memoryview` supports.
_CELLS = frozenset("?bBhHiIlLqQfd")

#: Writes each value sent to it. A generator keeps its local variables between values; a function would set them again.
_Writing = Generator[None, Any, None]
_Put = Callable[[Any], None]


class FixedRows:
    """Writes examples into the rows of one batch.

    Args:
        spec: spec that every example must match.
        columns: for each leaf, the array in the slot that holds its values.
    """

    def __init__(self, spec: Spec, columns: list[npt.NDArray[Any]]) -> None:
        self._spec = spec
        self._columns = [_column(leaf, column) for leaf, column in zip(spec.leaves, columns, strict=True)]
        # A tuple of leaves, by far the most common example, needs no flattening.
        self._flat = len(spec.leaves) if spec.is_flat_tuple() else -1
        self._is_alone = spec.tree.is_leaf()
        self._keys = len(keys) if (keys := spec.flat_keys()) else -1
        self._get: Any = itemgetter(*keys) if keys else None

    def write(self, row: int, example: Any, position: int = 0) -> None:
        """Write an example to a row; raises `MisfitAt` with `position`."""
        self.into(row, position)(example)

    def into(self, row: int, position: int = 0, *, fork: ForkGuard | None = None, has_marks: bool = False) -> _Put:
        """The function that writes successive examples; raises `MisfitAt` with positions counted from `position`.

        Args:
            row: row of the first example.
            position: position of the first example.
            fork: a forked copy of this process exits instead of writing.
            has_marks: whether SKIP or Many can occur; they raise `Uneven`.
        """
        return _started(self._writing(row, position, fork, has_marks))

    def _writing(self, row: int, position: int, fork: ForkGuard | None, has_marks: bool) -> _Writing:
        """Write each example sent to this generator."""
        flat, puts = self._flat, [_started(column(row, position)) for column in self._columns]
        is_pair = len(puts) == 2
        put, put_other = puts if is_pair else (puts[0], puts[0])
        while True:
            example = yield
            if fork is not None and fork.happened:
                fork.leave()  # user code returned in a forked copy of the worker
            if type(example) is tuple and len(example) == flat:
                values: Any = example
            elif has_marks and (example is SKIP or type(example) is Many):
                raise Uneven
            else:
                values = self._values(example, position)
            if is_pair:  # by far the most common: looping over two costs as much as writing them
                one, other = values
                put(one)
                put_other(other)
                one = other = None
            else:
                for put, one in zip(puts, values):  # noqa: B905  (faster)
                    put(one)
                one = None
            example = values = None  # free large examples before the next is made
            position += 1

    def _values(self, example: Any, position: int) -> Any:
        """The values at the leaves of an example."""
        if self._is_alone and type(array := plain_torch(example)) is ndarray:
            return [array]
        if type(example) is dict and len(example) == self._keys:
            try:
                return self._get(example) if self._keys > 1 else [self._get(example)]
            except KeyError:
                pass  # reported below
        try:
            return self._spec.flatten(example)
        except Misfit as misfit:
            raise MisfitAt(position, misfit) from None


def _started(writing: _Writing) -> _Put:
    next(writing)
    return writing.send


def _column(leaf: Leaf, column: npt.NDArray[Any]) -> Callable[[int, int], _Writing]:
    """A function (row, position) that makes the writer of a leaf's values."""
    if leaf.shape:
        return partial(_arrays, leaf, fixed_shape(leaf), list(column) if len(column) <= _VIEWS else column)
    number = next((number for number, dtype in PYTHON_NUMBERS.items() if dtype == leaf.dtype), None)
    is_plain = leaf.dtype.char in _CELLS and leaf.dtype.byteorder in "=|"
    cells: Any = column.data if is_plain else column  # faster for single numbers
    return partial(_numbers, leaf, number, cells)


def _arrays(leaf: Leaf, shape: tuple[int, ...], rows: Any, row: int, position: int) -> _Writing:
    """Write the arrays sent to this generator into successive rows. Arrays of the expected form skip further checks."""
    dtype, behind = leaf.dtype, position - row
    while True:
        value = yield
        if type(value) is ndarray and value.shape == shape and ((came := value.dtype) is dtype or came == dtype):
            rows[row][...] = value
        else:
            rows[row][...] = fitting(leaf, value, row + behind)
        value = None
        row += 1


def _numbers(leaf: Leaf, number: type | None, cells: Any, row: int, position: int) -> _Writing:
    """Like `_arrays`, for single numbers; `number` is the Python type of this dtype."""
    scalar, behind = leaf.dtype.type, position - row
    while True:
        value = yield
        kind = type(value)
        if kind is number or kind is scalar:
            try:
                cells[row] = value
            except (OverflowError, ValueError):
                fitting(leaf, value, row + behind)
                raise
        else:
            cells[row] = fitting(leaf, value, row + behind)
        row += 1
