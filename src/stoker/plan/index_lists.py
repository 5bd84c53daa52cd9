"""A list of indices, from anything that users write such a list as: checked, and kept as one array."""

from __future__ import annotations

import hashlib
import operator
from array import array
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


#: The length that stands for that of a source which never ends.
ENDLESS: Final = 1 << 62


class UnfitOrder(ValueError):
    """A list that no epoch can take. The message is a sentence about the list, or about "it"."""


@dataclass(frozen=True, eq=False)
class IndexList:
    """The indices that an epoch takes.

    Attributes:
        indices: the indices, one after the other, in the smallest dtype that holds them.
        bounds: the positions at which the batches begin, and the end; None if the list does not say.
        repeats: True if it names an example more than once.
    """

    indices: Array
    bounds: npt.NDArray[np.int64] | None = None
    repeats: bool = False

    @property
    def elements(self) -> int:
        """Number of batches or, if it does not say these, of indices."""
        return len(self.indices) if self.bounds is None else len(self.bounds) - 1

    @cached_property
    def digest(self) -> str:
        """Distinguishes the list from others."""
        found = hashlib.blake2b(np.ascontiguousarray(self.indices).data, digest_size=8)
        if self.bounds is not None:
            found.update(self.bounds.data)
        return found.hexdigest()

    def rows(self) -> npt.NDArray[np.int64]:
        """The number of indices in each batch."""
        assert self.bounds is not None
        return np.diff(self.bounds)

    def most_rows(self) -> int:
        """The number of indices in its largest batch; 0 without batches."""
        return 0 if self.bounds is None else int(self.rows().max())

    def least_rows(self) -> int:
        """The number of indices in its smallest batch."""
        return int(self.rows().min())

    def first_larger(self, most: int) -> tuple[int, int]:
        """The number of the first batch with more than `most` indices, and how many it has."""
        rows = self.rows()
        batch = int(np.argmax(rows > most))
        return batch, int(rows[batch])


def listed(given: Any, length: int, most: int) -> IndexList:
    """The list that the user gave, for a source of `length` examples.

    Args:
        given: indices or batches of indices: an array, a sequence, an iterator; or a mask, True for each example.
        length: examples in the source.
        most: indices that an iterator may give; one that gives more is taken to be endless.

    Raises:
        UnfitOrder: it is not such a list, is empty, or names an example that does not exist.

    Example:
        >>> listed([3, 1, 3], length=4, most=100).indices
        array([3, 1, 3], dtype=int32)
        >>> listed([[3, 1], [0]], length=4, most=100).bounds
        array([0, 2, 3])
    """
    if hasattr(given, "__array__"):
        return _of_array(np.asarray(given), length)
    if isinstance(given, range):
        for position in (0, len(given) - 1) if given else ():  # before it takes memory
            if not 0 <= given[position] < length:
                _refuse(f"position {position}", given[position], length)
        return _of_array(np.arange(given.start, given.stop, given.step), length)
    if isinstance(given, Set):
        raise UnfitOrder(f"a {type(given).__name__} has no order. Pass `sorted(...)`.")
    if isinstance(given, str | bytes | Mapping) or not (hasattr(given, "__iter__") or _is_sequence(given)):
        raise UnfitOrder(
            f"it is a {type(given).__name__}, but must be a sequence of indices, a sequence of batches of indices, or "
            "a mask with a bool for each example."
        )
    if isinstance(given, list | tuple):
        return _of_items(given, length)
    source = iter(given)
    try:
        items = _collected(source, most)
    finally:
        if isinstance(source, Generator):
            source.close()  # now, not when an error is forgotten: it may have more to put back
    return _of_array(items, length) if isinstance(items, np.ndarray) else _of_items(items, length)


def _of_array(found: Array, length: int) -> IndexList:
    if found.ndim not in (1, 2):
        raise UnfitOrder(
            f"it is an array of shape {found.shape}. Pass one dimension (indices) or two (a row for each batch)."
        )
    if not len(found):
        raise UnfitOrder("it is empty: an epoch needs at least one example.")
    if found.dtype.kind == "O":
        return _of_items(list(found), length)
    if found.ndim == 1 and found.dtype.kind == "b":
        return _of_mask(found, length)
    if found.dtype.kind not in "iu":
        where = "a mask has one dimension" if found.dtype.kind == "b" else "use `.astype(int)` if they are whole"
        raise UnfitOrder(f"its values must be whole numbers, got {found.dtype}, such as {found.flat[0]!r}; {where}.")
    if found.ndim == 1:
        return _checked(found, length)
    count, rows = found.shape
    if not rows:
        raise UnfitOrder("batch 0 is empty. Leave it out.")
    bounds = np.arange(0, count * rows + 1, rows, dtype=np.int64)
    return _checked(found.reshape(-1), length, bounds)


def _of_mask(mask: Array, length: int) -> IndexList:
    if length == ENDLESS:
        raise UnfitOrder("a mask needs a bool for each example, but the source never ends. Pass indices.")
    if len(mask) != length:
        raise UnfitOrder(f"a mask needs a bool for each of the source's {length:,} examples, got {len(mask):,}.")
    found = np.flatnonzero(mask)
    if not len(found):
        raise UnfitOrder("it is empty: the mask is False for every example.")
    return IndexList(found.astype(_dtype(length)))


def _of_items(items: Sequence[Any], length: int) -> IndexList:
    """The list of a sequence of indices or of batches; its first item says which."""
    if not len(items):
        raise UnfitOrder("it is empty: an epoch needs at least one example.")
    if not _is_batch(items[0]):
        found = _numbers(items, "position {}", length)
        return _of_mask(found, length) if found.dtype.kind == "b" else _checked(found, length)
    batches = [_batch(batch, number, length) for number, batch in enumerate(items)]
    bounds = np.cumsum([0, *map(len, batches)], dtype=np.int64)
    return _checked(np.concatenate(batches), length, bounds)


def _batch(batch: Any, number: int, length: int) -> Array:
    if not _is_batch(batch):
        raise UnfitOrder(
            f"item {number} is {batch!r:.80}, but the items before it are batches of indices. Give only batches, or "
            "only indices."
        )
    values = batch if isinstance(batch, np.ndarray) else list(batch)
    if not len(values):
        raise UnfitOrder(f"batch {number} is empty. Leave it out.")
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        return values
    found = _numbers(list(values), f"batch {number}, row {{}}", length)
    if found.dtype.kind == "b":
        raise UnfitOrder(f"batch {number} holds bools. A batch is a sequence of indices: use `np.flatnonzero(mask)`.")
    return found


def _numbers(values: Sequence[Any], place: str, length: int) -> Array:
    """The values as an array of whole numbers or bools. Raises `UnfitOrder` for the first that is neither."""
    try:
        found = np.array(values)
    except (ValueError, OverflowError, TypeError):  # some are sequences, or larger than any integer of NumPy's
        found = np.empty(0, object)
    if found.ndim == 1 and found.dtype.kind in "iub" and len(found):
        return found
    whole = list[int]()
    for position, value in enumerate(values):
        if not _is_index(value):
            raise UnfitOrder(f"{place.format(position)} holds {value!r:.80}, which is not a whole number.")
        whole.append(operator.index(value))
        if not 0 <= whole[-1] < length:
            _refuse(place.format(position), whole[-1], length)
    return np.array(whole)


def _checked(found: Array, length: int, bounds: Array | None = None) -> IndexList:
    """A copy of the indices, in the smallest dtype. Raises `UnfitOrder` for the first that no example has."""
    if found.min() < 0 or found.max() >= length:
        position = int(np.argmax((found < 0) | (found >= length)))
        place = f"position {position}"
        if bounds is not None:
            batch = int(np.searchsorted(bounds, position, side="right")) - 1
            place = f"batch {batch}, row {position - int(bounds[batch])}"
        _refuse(place, int(found[position]), length)
    repeats = _repeats(found, length)
    if repeats and length == ENDLESS:
        raise UnfitOrder(
            "it names examples more than once, which a source that never ends does not allow: repetitions are told "
            "apart by numbers beyond its length. Name each example once, or give the source a length."
        )
    if repeats and len(found) * length >= 1 << 63:
        raise UnfitOrder(
            f"it names examples more than once, and {len(found):,} indices into {length:,} examples are then too many "
            "to be numbered."
        )
    return IndexList(found.astype(_dtype(length)), bounds, repeats)


def _repeats(found: Array, length: int) -> bool:
    """True if one of the `length` examples of the source is named more than once."""
    count = len(found)
    if count > length:
        return True
    if length > 8 * count + 1_000_000:
        return len(np.unique(found)) < count
    seen = np.zeros(length, np.bool_)
    seen[found] = True
    return int(np.count_nonzero(seen)) < count


def _refuse(place: str, value: int, length: int) -> NoReturn:
    if length == ENDLESS:
        raise UnfitOrder(
            f"{place} holds {value}, but the source, which never ends, has the examples 0, 1, 2 and so on."
        )
    repair = ""
    if value < 0:
        repair = " Negative indices do not count from the end."
        repair += f" Pass {value + length}." if value + length >= 0 else ""
    raise UnfitOrder(f"{place} holds {value}, but the source has the examples 0 … {length - 1}.{repair}")


def _dtype(length: int) -> type[np.signedinteger[Any]]:
    return np.int32 if length <= 1 << 31 else np.int64


def _collected(items: Iterator[Any], most: int) -> Array | list[Any]:
    """The items of an iterator: indices as an array, batches as a list. Raises `UnfitOrder` if it is endless."""
    first = next(items, None)
    if first is None:
        raise UnfitOrder("it is empty: an epoch needs at least one example.")
    if not _is_index(first) or isinstance(first, bool | np.bool_):
        return _batches_of(chain([first], items), most)
    found = array("q")  # a list of Python's ints takes five times as much memory
    for value in chain([first], items):
        try:
            found.append(operator.index(value))
        except (TypeError, OverflowError):
            raise UnfitOrder(f"position {len(found)} holds {value!r:.80}, which is not a whole number.") from None
        if len(found) > most:
            _refuse_endless(most)
    return np.frombuffer(found, np.int64)


def _batches_of(items: Iterable[Any], most: int) -> list[Any]:
    found, count = list[Any](), 0
    for item in items:
        if _is_batch(item):
            item = np.array(item) if hasattr(item, "__array__") else list(item)  # an iterator may use one list again
            count += len(item)
        found.append(item)
        count += 1
        if count > most:
            _refuse_endless(most)
    return found


def _refuse_endless(most: int) -> NoReturn:
    raise UnfitOrder(
        f"it has given more than {most:,} indices and seems to have no end. An epoch must end: stop the iterator, or "
        "give a list or array, which may be longer."
    )


def _is_index(value: Any) -> bool:
    """True for a whole number; also for one in an array without dimensions."""
    if getattr(value, "ndim", 0):
        return False
    try:
        operator.index(value)
    except TypeError:
        return isinstance(value, np.bool_)
    return True


def _is_batch(value: Any) -> bool:
    """True for a sequence that may hold the indices of a batch."""
    if isinstance(value, str | bytes | Mapping | Set):
        return False
    return bool(getattr(value, "ndim", 0)) or (_is_sequence(value) and not _is_index(value))


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")
