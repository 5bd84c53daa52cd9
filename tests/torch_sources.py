"""PyTorch datasets, for tests. Workers import this module."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset, get_worker_info

TENSORS = [
    *(torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8),
    *(torch.uint16, torch.uint32, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
]
ARRAYS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()


class Made(Dataset[Any]):
    """Makes each example from its number."""

    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self.make, self.length, self.factor = make, length, 1

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.make(index * self.factor)


class InRuns(Made):
    """Makes several at once."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.make(index) for index in indices]

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("a DataLoader calls __getitems__ too")


class NotInRuns(Made):
    __getitems__ = None


class Turning(Made):
    """Gives the number of its epoch."""

    epoch = 0

    def __getitem__(self, index: int) -> int:
        return self.epoch + 100 * (self.factor - 1)

    def on_epoch_end(self) -> None:
        self.epoch += 1


def set_factor(worker: int) -> None:
    get_worker_info().dataset.factor += 1  # type: ignore[union-attr]


class Point(NamedTuple):
    x: Any
    y: Any


def leaves(n: int) -> Any:
    """Whatever `default_collate` accepts."""
    return {
        "tensors": tuple(torch.full((2, 1), n % 2).to(dtype) for dtype in TENSORS),
        "single": tuple(torch.tensor(n % 2).to(dtype) for dtype in TENSORS),
        "arrays": [np.full((2, 1), n % 2, dtype) for dtype in ARRAYS],
        "scalars": [np.dtype(dtype).type(n % 2) for dtype in ARRAYS if dtype != "uint64"],
        "python": (n, n / 4, n % 2 == 0),
        "text": ("ü" * n, b"\0" * n),
        "lists": [[n, n + 0.5], ["a", "b" * n], [torch.tensor(n), [np.arange(n, n + 2)]], []],
        "range": range(n, n + 2),
        "point": Point(n, {"deep": [n, 0.5]}),
        "mappings": [collections.OrderedDict(b=n, a=0.5), collections.UserDict(x=[n])],
        "no rows": torch.zeros(0, 3),
        "not contiguous": torch.arange(n, n + 6).reshape(2, 3).T,
        "gradient": torch.full((2,), float(n), requires_grad=True),
        "conjugate": torch.tensor([complex(n, 1)]).conj(),
        "parameter": torch.nn.Parameter(torch.full((1,), float(n))),
    }


def features(n: int) -> tuple[torch.Tensor, int]:
    return torch.full((3,), float(n)), n % 2


def noise(n: int) -> float:
    return random.random() + float(np.random.random()) + float(torch.rand(()))


def tensors(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count * 2.0).reshape(count, 2), torch.arange(count))


def padded(examples: list[Any]) -> Any:
    """A collate function, whose examples are vectors of differing length."""
    from torch.nn.utils.rnn import pad_sequence

    return {"ids": pad_sequence(examples, batch_first=True), "lengths": torch.tensor([len(one) for one in examples])}


def vector(n: int) -> torch.Tensor:
    return torch.arange(n % 6)


def doubled(example: Any) -> Any:
    return example[0] * 2, example[1]


def batch_of(n: int) -> Any:
    return torch.full((3 if n < 4 else 2, 2), float(n)), np.arange(3 if n < 4 else 2)


# ── iterable ones ────────────────────────────────────────────────────────────────────────────
class Striped(IterableDataset[Any]):
    """Numbers below n, divided among the workers."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        yield from range(first, self.n, step)


class Sized(Striped):
    def __init__(self, n: int, length: int) -> None:
        super().__init__(n)
        self.length = length

    def __len__(self) -> int:
        return self.length


class Undivided(IterableDataset[Any]):
    """Numbers from `start` to `end`; its worker_init_fn may set these."""

    def __init__(self, end: int) -> None:
        self.start, self.end, self.parts = 0, end, [0]

    def __iter__(self) -> Iterator[int]:
        yield from range(self.start, self.end)


def set_range(worker: int) -> None:
    """The worker_init_fn of PyTorch's documentation."""
    info: Any = get_worker_info()
    assert worker == info.id
    each = -(-info.dataset.end // info.num_workers)
    info.dataset.start = worker * each
    info.dataset.end = min(info.dataset.start + each, info.dataset.end)
    info.dataset.parts.append(worker)
    assert info.dataset.parts == [0, worker], "another shard's, or another epoch's, change is seen"


def set_nothing(worker: int) -> None:
    random.seed(worker)
    assert get_worker_info().id == worker  # type: ignore[union-attr]


class OwnIterator(IterableDataset[Any]):
    """Is its own iterator, so its position is an attribute."""

    def __init__(self, n: int) -> None:
        self.n, self.position = n, -1

    def __iter__(self) -> Iterator[int]:
        info: Any = get_worker_info()
        self.position, self.step = self.position + 1 + info.id, info.num_workers
        return self

    def __next__(self) -> int:
        if self.position >= self.n:
            raise StopIteration
        self.position += self.step
        return self.position - self.step


class Stateful(OwnIterator):
    """Goes on from a state, without the examples before it."""

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class ShuffledAlike(IterableDataset[Any]):
    """Shuffles in the same way in each worker, and takes its part then."""

    def __init__(self, n: int, how: str) -> None:
        self.n, self.how, self.generator = n, how, np.random.default_rng(3)

    def __iter__(self) -> Iterator[int]:
        info: Any = get_worker_info()
        generator = self.generator if self.how == "held" else np.random.default_rng(info.seed - info.id)
        yield from generator.permutation(self.n)[info.id :: info.num_workers].tolist()


class Seeding(IterableDataset[Any]):
    """Reads the worker's number only to seed."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        random.seed(get_worker_info().id)  # type: ignore[union-attr]
        yield from range(self.n)


class Stepping(Seeding):
    """Asks how many workers there are only after its first example."""

    def __iter__(self) -> Iterator[int]:
        number = get_worker_info().id  # type: ignore[union-attr]
        while number < self.n:
            yield number
            number += get_worker_info().num_workers  # type: ignore[union-attr]


class OneEach(Seeding):
    """Has a single example for each of the first workers, and does not ask how many there are."""

    def __iter__(self) -> Iterator[int]:
        if (number := get_worker_info().id) < self.n:  # type: ignore[union-attr]
            yield number


class Told(IterableDataset[Any]):
    """What `get_worker_info()` says, at the first example and later."""

    def __iter__(self) -> Iterator[Any]:
        for _ in range(2):
            info: Any = get_worker_info()
            yield info.id, info.num_workers, info.seed, info.dataset is self


class Epochs(IterableDataset[Any]):
    """The numbers that its `set_epoch` was given."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        assert get_worker_info().id >= 0  # type: ignore[union-attr]
        yield from self.epochs


class Locked(Striped):
    """Cannot be pickled."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("it holds a license")
