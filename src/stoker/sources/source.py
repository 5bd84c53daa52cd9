"""The protocol of sources: everything that a Loader needs to know about where examples come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from stoker.sources.first_step import Step

if TYPE_CHECKING:  # workers import sources, and need no epochs
    import numpy as np
    import numpy.typing as npt

    from stoker.epochs.epoch import MakeEpoch
    from stoker.plan.batching import EpochCounts


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class ReadyBatches:
    """The words for a source whose elements are batches, where an argument of the Loader does not go with that.

    Attributes:
        why: how it is known.
        repair: how to batch examples instead.
    """

    why: str = "batched=True: each element of the source is a batch"
    repair: str = "Omit batched for a source of examples"


class ArraysInMemory(Protocol):
    """Arrays whose rows are read without running the user's code."""

    def __getitem__(self, index: int) -> Any: ...

    def is_in_memory(self) -> bool:
        """True if reading them never waits for a disk."""

    def take(self, indices: npt.NDArray[np.int64], rows: Sequence[npt.NDArray[Any]]) -> None:
        """Write the examples `indices` to `rows`, one output for each array."""


class Source(ABC):
    """Where examples come from.

    A subclass says what workers read (`payload`) and which kind of epoch divides the reading into tasks (`epochs`).
    `MapSource` is read by index, a `ShardedSource` is opened by shards in the workers, an `IterableSource` is pulled in
    the trainer. A new kind is usually a subclass of `ShardedSource`, or any object with `__len__` and `__getitem__`.

    Attributes:
        noun: the kind, as messages call it.
        batched: True if each element is already a batch.
        ready: the words for that.
        has_index: True if examples are read by index. The whole source can then be shuffled, and batches divided
            among trainers.
        is_sharded: True if workers open shards of `payload`, which is then a `ShardedSource`.
        names: attributes that `Loader.update` may set.
        as_torch: True if examples are joined as by PyTorch's `default_collate`: see `Collation`.
        arrays: the arrays that the source consists of, if it needs no user code to read; otherwise None.
        repeatable: True if it gives the examples of an epoch whenever workers ask for them. False if that may change
            something for the epoch before: then no epoch is read before it begins.
        step: called with each element in a worker, before the user's transform; returns the example, or SKIP.
        may_skip: True if it returns SKIP for some, so that the number of examples is unknown.
        implied: arguments of the Loader that the source determines, such as the batch size of a PyTorch DataLoader.
            They hold where the user leaves the default. Another value given by the user is an error.
        own_names: what the source itself calls the arguments in `implied`, where that differs: `drop_last`.
    """

    noun = "a generator or iterable"
    batched = False
    ready = ReadyBatches()
    has_index = False
    is_sharded = False
    as_torch = False
    names: frozenset[str] = frozenset()
    arrays: ArraysInMemory | None = None
    repeatable = True
    step: Step | None = None
    may_skip = False
    implied: Mapping[str, Any] = _NOTHING
    own_names: Mapping[str, str] = _NOTHING

    @property
    @abstractmethod
    def length(self) -> float | None:
        """Examples of an epoch; None if unknown, `math.inf` if they never end."""

    @property
    @abstractmethod
    def payload(self) -> Any:
        """The object that workers read; None if the trainer sends them the items."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Everything about the source that the batches depend on, apart from the user's code. JSON-compatible."""

    @abstractmethod
    def epochs(self, counts: EpochCounts) -> MakeEpoch:
        """Returns a function that makes the epochs. It outlives this object, and must not keep the user's data alive.

        Args:
            counts: how examples form batches and, for a source that is read by index, in which order they are read.
        """

    def check_workers(self) -> None:  # noqa: B027  (most kinds can always be opened)
        """Raise `SourceError` if workers cannot open the source."""

    def length_check(self) -> Callable[[], None]:
        """Returns a function that raises `SourceError` once the length has changed. It keeps no user data alive."""
        return _unchanging


def _unchanging() -> None:
    """A check that always succeeds."""
