"""A seeded shuffle buffer, for streams of unknown length."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def shuffled(items: Iterator[_T], size: int, seed: int) -> Generator[_T, None, None]:
    """Yield the items in an order drawn from `seed`, each at most about `size` places early.

    Works as `tf.data.Dataset.shuffle`: a buffer of `size` items is filled; then a random one of them makes
    room for each next item.

    >>> sorted(shuffled(iter(range(5)), 3, seed=1))
    [0, 1, 2, 3, 4]
    """
    drawn = random.Random(seed)
    buffer: list[_T] = []
    try:
        for item in items:
            if len(buffer) < size:
                buffer.append(item)
                continue
            place = drawn.randrange(size)
            buffer[place], item = item, buffer[place]
            yield item
        drawn.shuffle(buffer)
        yield from buffer
    finally:
        if hasattr(items, "close"):
            items.close()
