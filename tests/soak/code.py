"""Sources and transforms that wait and raise where they are told to.

Workers import this module, so it imports no test tools and no TensorFlow. An example is a function of its number.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import stoker

#: Kinds of source, by what the user writes.
KINDS = "map", "generator", "iterable", "arrays"


class Numbers:
    """The numbers below `length`, by index."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def shard_of(length: int, shard: stoker.Shard) -> Iterator[int]:
    """Shards of unequal sizes: each has one third of what those before it left, the last has all the rest."""
    start = 0
    for _ in range(shard.index):
        start += (length - start) // 3
    stop = length if shard.index == shard.count - 1 else start + (length - start) // 3
    yield from range(start, stop)


def below(length: int) -> Iterator[int]:
    return iter(range(length))


def source(kind: str, length: int, shards: int = 4, open_shards: int = 2) -> Any:
    """The numbers below `length`, in the order of this kind of source."""
    match kind:
        case "map":
            return Numbers(length)
        case "arrays":
            return stoker.from_arrays(np.arange(length))
        case "generator":
            return stoker.from_generator(
                functools.partial(shard_of, length), shards=shards, open_shards=min(open_shards, shards)
            )
        case "iterable":
            return stoker.from_iterable(functools.partial(below, length))
    raise AssertionError(kind)


@dataclass(frozen=True)
class Work:
    """A transform: waits, raises, and makes an example of a number, with noise of the loader's seed.

    Attributes:
        delays: seconds, by number.
        bad: the numbers at which it raises.
        pace: seconds for every other number.
        width: numbers in the example's array.
    """

    delays: Mapping[int, float] = field(default_factory=dict)
    bad: frozenset[int] = frozenset()
    pace: float = 0.0
    width: int = 3

    def __call__(self, number: Any, rng: np.random.Generator) -> dict[str, Any]:
        number = int(number)
        if delay := self.delays.get(number, self.pace):
            time.sleep(delay)
        if number in self.bad:
            raise ValueError(f"number {number} is bad")
        return {"number": number, "noise": rng.random(), "row": np.full(self.width, number, np.int32)}


class Points:
    """What a small model learns from: points of the plane, and on which side of a line they lie.

    Args:
        length: points.
        pace: seconds that each takes.
    """

    def __init__(self, length: int, pace: float) -> None:
        self.length, self.pace = length, pace

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        time.sleep(self.pace)
        point = np.random.default_rng(index).normal(size=2).astype(np.float32)
        return point, int(point.sum() > 0)


class Blocks:
    """Examples of so many bytes, each full of its own number."""

    def __init__(self, nbytes: int) -> None:
        self.count = nbytes // 8

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> Any:
        return np.full(self.count, index)
