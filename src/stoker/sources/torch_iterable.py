"""PyTorch's `IterableDataset`, which divides itself by `get_worker_info()`: each shard is one of PyTorch's workers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np

from stoker.plan.permutation import mix
from stoker.sources.copies import Copies
from stoker.sources.sharded import CannotRead, ShardedSource
from stoker.sources.torch_worker import WorkerPlace

#: Shards of an `IterableDataset` that is given without their number.
SHARDS: Final = 16


class TorchIterableSource(ShardedSource):
    """See `from_torch`.

    Each shard reads its own copy of the dataset, in the state in which the Loader was created. So an iteration that
    changes the dataset, or the `worker_init_fn`, affects no other shard and no other epoch.

    Args:
        dataset: the `IterableDataset`.
        count: number of shards, and so `get_worker_info().num_workers`.
        worker_init_fn: called with the number of each shard before it is read, as by a DataLoader in its worker.
        is_alone: the single shard is no worker: `get_worker_info()` returns None, as with `num_workers=0`.
        is_default: the user has not chosen the number of shards.
    """

    noun = "a PyTorch IterableDataset"
    as_torch = True

    def __init__(
        self,
        dataset: Any,
        count: int,
        *,
        worker_init_fn: Callable[[int], Any] | None = None,
        is_alone: bool = False,
        is_default: bool = False,
    ) -> None:
        self._dataset, self._init, self._is_alone, self._is_default = dataset, worker_init_fn, is_alone, is_default
        self.count = self.open_shards = count
        self._length = _length(dataset)
        self.length_claim = f"len() of this {type(dataset).__name__} is {{}}, but its shards"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._copies = Copies(self._dataset)  # now: the generators that it holds are seeded later

    @property
    def length(self) -> int | None:
        return self._length

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "source": "torch"}

    def seed_of(self, seed: int, epoch: int, index: int) -> int:
        return (mix(seed, epoch, 3) >> 2) + index  # 63 bits and in turn, as PyTorch seeds its workers

    def read(self, index: int, rng: np.random.Generator) -> Iterator[Any]:
        return self.read_at(0, index, rng)

    def read_at(self, epoch: int, index: int, rng: np.random.Generator) -> Iterator[Any]:
        dataset = self._copy()
        if callable(set_epoch := getattr(dataset, "set_epoch", None)):
            set_epoch(epoch)
        seed: Any = rng.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]  # missing in NumPy's stubs
        place = WorkerPlace(dataset, None if self._is_alone else index, self.count, seed)
        if self._init is not None:
            place.call(self._init, index)
        reaches = "dataset" in place.seen  # it may tell the dataset which part to read
        place.seen.clear()
        checks = () if reaches or self.count == 1 else (self._require_id, self._require_count)
        return _PlacedIterator(dataset, place, checks)

    def _copy(self) -> Any:
        copies = getattr(self, "_copies", None)
        if copies is not None and copies.refusal is None:
            return copies.make()
        if self.count == 1:
            return self._dataset
        reason = "the source cannot be copied" if copies is None else copies.refusal
        raise CannotRead(
            f"each of the {self.count} shards reads its own copy of the dataset, and this "
            f"{type(self._dataset).__name__} cannot be copied: {reason}. Make it picklable, or pass "
            "`stoker.from_torch(dataset, shards=1)`."
        )

    def _require_id(self, place: WorkerPlace) -> None:
        """Raise `CannotRead` if the dataset has given an example without asking which part to read."""
        if "id" not in place.seen:
            raise CannotRead(
                f"this {type(self._dataset).__name__} does not read `torch.utils.data.get_worker_info().id`, so all "
                f"{self.count} shards give the same examples, and each would come {self.count} times. Read it in one "
                "worker, `stoker.from_torch(dataset, shards=1)`, or let it divide itself: `info = "
                "torch.utils.data.get_worker_info()`, and then only `self.files[info.id :: info.num_workers]`."
            )

    def _require_count(self, place: WorkerPlace) -> None:
        """Raise `CannotRead` if the dataset has given two examples and not asked how many shards there are.

        It cannot have divided itself by a number that only Stoker knows. One that the user chose, it may know.
        """
        if self._is_default and "num_workers" not in place.seen:
            raise CannotRead(
                f"this {type(self._dataset).__name__} reads `torch.utils.data.get_worker_info().id`, but not "
                f"`num_workers`, so it does not divide itself among the {self.count} shards that Stoker takes by "
                f"default: examples would come up to {self.count} times, or be missing. Read it in one worker, "
                "`stoker.from_torch(dataset, shards=1)`, or let it take only `self.files[info.id :: "
                "info.num_workers]`. If it is made for a certain number of workers, pass that as `shards=`."
            )


class _PlacedIterator:
    """The iterator of a dataset, called at its place. It has a state if the dataset's own has.

    Args:
        dataset: the copy to iterate.
        place: what `get_worker_info()` returns meanwhile.
        checks: called one after the other, each after one of the first examples.
    """

    def __init__(self, dataset: Any, place: WorkerPlace, checks: Iterable[Callable[[WorkerPlace], None]]) -> None:
        self._place, self._checks, self._call = place, list(checks), place.call
        self._iterator = iterator = place.call(iter, dataset)
        if hasattr(iterator, "state_dict") and hasattr(iterator, "load_state_dict"):
            self.state_dict: Callable[[], Any] = iterator.state_dict
            self.load_state_dict: Callable[[Any], None] = self._load

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        example = self._call(next, self._iterator)
        if self._checks:
            self._checks[0](self._place)
            del self._checks[0]
        return example

    def _load(self, state: Any) -> None:
        self._call(self._iterator.load_state_dict, state)
        self._checks.clear()  # whoever saved the state has passed it

    def close(self) -> None:
        """Close the dataset's iterator, if it is a generator or the like."""
        if hasattr(self._iterator, "close"):
            self._call(self._iterator.close)


def _length(dataset: Any) -> int | None:
    """The dataset's own `len()`; None if it has none."""
    try:
        return operator.index(len(dataset))
    except Exception:  # most have none, and some raise: PyTorch does not ask for it either
        return None
