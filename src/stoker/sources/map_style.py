"""Map-style sources: any object with `__len__` and `__getitem__`."""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from stoker.errors import SourceError, cause, summary
from stoker.sources.arrays import ArraySource, rows_of
from stoker.sources.classes import is_keras
from stoker.sources.mistaken import mistaken
from stoker.sources.source import Source
from stoker.sources.stored_arrays import StoredRows

if TYPE_CHECKING:
    from stoker.epochs.epoch import MakeEpoch
    from stoker.plan.batching import EpochCounts


class MapSource(Source):
    """A source that is read by index: the user's object. The trainer calls only its `__len__`.

    Args:
        source: the user's object.
        length: its elements, if they are not counted by `len()`; `math.inf` if it can be read at any index.

    Raises:
        SourceError: the source is not map-style, or empty.
    """

    noun = "a list or array"
    has_index = True

    def __init__(self, source: Any, length: float | None = None) -> None:
        if length is None and (message := mistaken(source)) is not None:
            raise SourceError(message)
        self._source, self._length = source, _length(source) if length is None else length
        if self._length < 1:
            raise SourceError(
                f"the source is empty: len() of this {type(source).__name__} is 0. Check its paths or filters."
            )
        self.arrays: ArraySource | None = rows_of(source)
        if self.arrays is None and not isinstance(source, StoredRows):
            self.names = frozenset(_names(source))

    @property
    def length(self) -> float:
        return self._length

    @property
    def payload(self) -> Any:
        return self._source

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "map-style", "length": "endless" if self._length == math.inf else self._length}

    def epochs(self, counts: EpochCounts) -> MakeEpoch:
        from stoker.epochs.index_epoch import IndexEpoch

        return lambda begin, fed: IndexEpoch(counts, begin)

    def check_workers(self) -> None:
        for rows in [self._source] if self.arrays is None else self.arrays.arrays:
            if isinstance(rows, StoredRows):
                rows.check()

    def length_check(self) -> Callable[[], None]:
        """Returns a function that raises `SourceError` once the length has changed.

        The source is kept by a weak reference where possible. So a dataset that is referenced nowhere else lies in
        memory once, in the pages that the workers share.
        """
        get, length = _reference(self._source), self._length

        def check() -> None:
            source = get()
            if source is not None and length != math.inf and (now := _length(source)) != length:
                raise SourceError(changed_length(int(length), now))

        return check


def count_of(source: Any) -> int:
    """Elements of an object that is read by index: its `len()`, or the `num_batches` of a Keras dataset."""
    has_number = hasattr(type(source), "num_batches") and is_keras(source)  # in this order: each task asks
    return operator.index(source.num_batches if has_number else len(source))


def reads_in_runs(payload: Any) -> bool:
    """True if an object that is read by index can return several examples per call.

    PyTorch's `Subset` and `StackDataset` have `__getitems__`, but it only calls what they hold. If that reads one
    example at a time, so do they here: each example then has random numbers of its own.
    """
    if (held := _held(payload)) is not None:
        return any(map(reads_in_runs, held))
    return getattr(type(payload), "__getitems__", None) is not None


def _held(payload: Any) -> Iterable[Any] | None:
    """The datasets that one of PyTorch's wrappers reads; None for anything else."""
    if type(payload).__module__ != "torch.utils.data.dataset":
        return None
    match type(payload).__name__:
        case "Subset":
            return (payload.dataset,)
        case "StackDataset":
            return payload.datasets.values() if isinstance(payload.datasets, dict) else tuple(payload.datasets)
    return None


def changed_length(was: int, now: int) -> str:
    """The message for a source whose length changed."""
    return (
        f"the source had {was:,} examples when the Loader was created and has {now:,} now, so an epoch would lose "
        "or repeat examples. Create a new Loader."
    )


def _reference(source: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(source)
    except TypeError:  # lists and tuples do not support weak references
        return lambda: source


def _names(source: Any) -> Iterable[str]:
    """Attributes that can be set. Some objects, such as lists, have none."""
    if not hasattr(source, "__dict__") and not hasattr(type(source), "__slots__"):
        return ()
    try:
        return [name for name in dir(source) if not name.startswith("__")]
    except Exception:  # the user's own `__dir__`
        return list(vars(source))


def _length(source: Any) -> int:
    try:
        return count_of(source)
    except Exception as error:
        raise SourceError(f"len() of the source, a {type(source).__name__}, raised {summary(error)}") from cause(error)
