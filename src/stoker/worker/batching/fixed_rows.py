"""Examples into the rows of a slot: each value is checked, then copied once, to its place.

This is the innermost loop of the product. An example is written as soon as it is made, before user code runs on: that
code may fill the same arrays again for the next one, and large examples should be dropped at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from numpy import ndarray

from stoker.sources.markers import SKIP, Many
from stoker.structure.spec import Leaf, Misfit, Spec, fixed_shape
from stoker.structure.values import PYTHON_NUMBERS
from stoker.worker.batching.fitting import MisfitAt, Uneven, fitting

if TYPE_CHECKING:
    from stoker.worker.batching.fork_guard import ForkGuard

#: Rows of a batch of which a view is kept each: to make it anew takes as long as to write a hundred floats.
_VIEWS = 1024
#: The dtypes whose numbers a `memoryview` takes.
_CELLS = frozenset("?bBhHiIlLqQfd")

#: Writes what it is sent. A generator keeps its variables from one value to the next; a function would set them anew.
_Writing = Generator[None, Any, None]
_Put = Callable[[Any], None]


class FixedRows:
    """Writes examples into rows of one batch.

    Args:
        spec: what every example must look like.
        columns: for each leaf, the array over the slot that it is written to.
    """

    def __init__(self, spec: Spec, columns: list[npt.NDArray[Any]]) -> None:
        self._spec = spec
        self._columns = [_column(leaf, column) for leaf, column in zip(spec.leaves, columns, strict=True)]
        # A tuple of leaves, by far the commonest example, needs no flattening.
        self._flat = len(spec.leaves) if spec.is_flat_tuple() else -1
        self._is_alone = spec.tree.is_leaf()
        self._keys = len(keys) if (keys := spec.flat_keys()) else -1
        self._get: Any = itemgetter(*keys) if keys else None

    def write(self, row: int, example: Any, position: int = 0) -> None:
        """Write an example to a row; raises `MisfitAt` with this position."""
        self.into(row, position)(example)

    def into(self, row: int, position: int = 0, *, fork: ForkGuard | None = None, has_marks: bool = False) -> _Put:
        """What writes one example after the other, from this row on; raises `MisfitAt` with positions from this one on.

        Args:
            row: the first one.
            position: its position.
            fork: a forked copy of this process exits instead of writing.
            has_marks: whether SKIP or Many may come, which raise `Uneven`.
        """
        return _started(self._writing(row, position, fork, has_marks))

    def _writing(self, row: int, position: int, fork: ForkGuard | None, has_marks: bool) -> _Writing:
        """Writes what is sent."""
        flat, puts = self._flat, [_started(column(row, position)) for column in self._columns]
        is_pair = len(puts) == 2
        put, put_other = puts if is_pair else (puts[0], puts[0])
        while True:
            example = yield
            if fork is not None and fork.happened:
                fork.leave()  # this copy of the worker came back from the user's code
            if type(example) is tuple and len(example) == flat:
                values: Any = example
            elif has_marks and (example is SKIP or type(example) is Many):
                raise Uneven
            else:
                values = self._values(example, position)
            if is_pair:  # by far the commonest: a loop over two costs as much as to write them
                one, other = values
                put(one)
                put_other(other)
                one = other = None
            else:
                for put, one in zip(puts, values):  # noqa: B905  (quicker)
                    put(one)
                one = None
            example = values = None  # large ones are dropped before the next is made
            position += 1

    def _values(self, example: Any, position: int) -> Any:
        """What stands at the leaves."""
        if self._is_alone and type(example) is ndarray:
            return [example]
        if type(example) is dict and len(example) == self._keys:
            try:
                return self._get(example) if self._keys > 1 else [self._get(example)]
            except KeyError:
                pass  # told by what follows
        try:
            return self._spec.flatten(example)
        except Misfit as misfit:
            raise MisfitAt(position, misfit) from None


def _started(writing: _Writing) -> _Put:
    next(writing)
    return writing.send


def _column(leaf: Leaf, column: npt.NDArray[Any]) -> Callable[[int, int], _Writing]:
    """What writes the values of a leaf from a row on, which has this position."""
    if leaf.shape:
        return partial(_arrays, leaf, fixed_shape(leaf), list(column) if len(column) <= _VIEWS else column)
    number = next((number for number, dtype in PYTHON_NUMBERS.items() if dtype == leaf.dtype), None)
    is_plain = leaf.dtype.char in _CELLS and leaf.dtype.byteorder in "=|"
    cells: Any = column.data if is_plain else column  # quicker for single numbers
    return partial(_numbers, leaf, number, cells)


def _arrays(leaf: Leaf, shape: tuple[int, ...], rows: Any, row: int, position: int) -> _Writing:
    """Writes the arrays that are sent to rows, one after the other; what is as expected, without a closer look."""
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
    """The same for single numbers; `number` is the type of Python's that has the dtype."""
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
