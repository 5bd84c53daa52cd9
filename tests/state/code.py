"""Sources of every kind whose examples are numbers; workers import this module."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import stoker

LENGTH = 53
SIZES = (7, 1, 12, 0, 3, 9, 5, 4, 2, 10)  # of shards; 53 in all


class Numbers:
    """By index; an example is its number and a random one."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return {"n": index, "random": random.random(), "numpy": np.random.rand(2)}


class InRuns(Numbers):
    """Makes several at once; one of the random numbers is that of the run."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        of_run = random.random()
        return [{**self[index], "random": of_run} for index in indices]


def shard_of(shard: stoker.Shard) -> Iterator[Any]:
    """A plain generator."""
    start = sum(SIZES[: shard.index])
    for number in range(start, start + SIZES[shard.index]):
        yield {"n": number, "random": random.random(), "numpy": np.random.rand(2)}


class Resumable:
    """An iterator with a state, which counts in a file how often it is asked."""

    def __init__(self, shard: stoker.Shard, file: str, state: Callable[[int], Any]) -> None:
        self._start, self._stop = sum(SIZES[: shard.index]), SIZES[shard.index]
        self._at, self._file, self._state = 0, file, state

    def __iter__(self) -> Resumable:
        return self

    def __next__(self) -> Any:
        if self._at == self._stop:
            raise StopIteration
        self._at += 1
        with open(self._file, "a") as file:  # noqa: PTH123  (one line an example)
            file.write(".")
        return {"n": self._start + self._at - 1, "random": random.random(), "numpy": np.random.rand(2)}

    def state_dict(self) -> Any:
        return self._state(self._at)

    def load_state_dict(self, state: Any) -> None:
        self._at = int(state["at"] if isinstance(state, dict) else state)


def items() -> Iterator[Any]:
    """What an iterable gives."""
    for number in range(LENGTH):
        yield {"n": number}


def odd_ones(example: Any) -> Any:
    """None for some, three for others."""
    n = int(example["n"])
    if n % 4 == 1:
        return stoker.SKIP
    return stoker.Many([{**example, "n": n + place / 10} for place in range(3)]) if n % 5 == 2 else secret(example)


def secret(example: Any) -> Any:
    return {**example, "n": float(example["n"])}


def secretly_odd(example: Any) -> Any:
    """SKIP in the second half alone, and not by a name that can be seen."""
    return getattr(stoker, "SK" + "IP") if example["n"] >= 20 and int(example["n"]) % 3 == 0 else secret(example)


def varying(example: Any) -> Any:
    """What is handed out one by one may have any shape."""
    n = int(example["n"])
    return {"ids": np.arange(n % 5), "text": "x" * (n % 4), "n": n, "words": np.array(["a" * n, "b"], object)}
