"""What goes wrong, in the workers. They import this module, so it imports no test tools and no TensorFlow."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

#: The example at which it happens, and how many there are.
AT, COUNT = 37, 120


class Unpicklable(Exception):
    def __init__(self, one: str, two: object) -> None:
        super().__init__(one, two)

    def __reduce__(self) -> Any:
        raise TypeError("not even this")


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@dataclass(frozen=True)
class Harm:
    """Does something bad, each time or, where `once` names a file that is not there yet, in one worker only."""

    how: str
    once: str = ""

    def __call__(self) -> None:
        if self.once:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        self._do()

    def _do(self) -> None:
        how = self.how
        if how.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[how])
            time.sleep(60)
        elif how.startswith("os._exit"):
            os._exit(int(how[9:-1]))
        else:
            getattr(self, how.replace(" ", "_"))()

    def error(self) -> None:
        raise LookupError("mine")

    def unpicklable_error(self) -> None:
        raise Unpicklable("mine", open(os.devnull))  # noqa: PTH123, SIM115

    def wordless_error(self) -> None:
        raise Wordless("mine")

    def long_error(self) -> None:
        raise LookupError("mine " * 2_000_000)

    def error_of_two_causes(self) -> None:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise LookupError("mine") from cause

    def sys_exit(self) -> None:
        sys.exit(0)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def null_read(self) -> None:
        ctypes.string_at(0)

    def loop(self) -> None:
        while True:
            """For ever."""

    def loop_in_C(self) -> None:
        re.match(r"(a+)+$", "a" * 60 + "b")  # holds the GIL

    def no_descriptors(self) -> None:
        while True:
            os.dup(0)

    def closed_streams(self) -> None:
        for fd in range(3):
            os.close(fd)

    def flood_of_stderr(self) -> None:
        os.write(2, b"noise\n" * 200_000)


class Numbers:
    """A map-style source."""

    def __init__(self, opening: Harm | None = None, reading: Harm | None = None) -> None:
        self.opening, self.reading = opening, reading

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        if self.opening:
            self.opening()
        if self.reading and index == AT:
            self.reading()
        return np.full(8, index)


class LoadedBadly(Numbers):
    """Harm is done where a worker unpickles it."""

    def __init__(self, harm: Harm) -> None:
        super().__init__()
        self.harm, self.trainer = harm, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if os.getpid() != self.trainer:
            self.harm()


@dataclass(frozen=True)
class Records:
    """A generator function over shards."""

    opening: Harm | None = None
    reading: Harm | None = None

    def __call__(self, shard: Any) -> Iterator[Any]:
        if self.opening:
            self.opening()
        for index in shard.split(range(COUNT)):
            if self.reading and index == AT:
                self.reading()
            yield np.full(8, index)


@dataclass(frozen=True)
class Rows:
    """A factory of iterators, for the trainer's process."""

    def __call__(self) -> Iterator[Any]:
        return (np.full(8, index) for index in range(COUNT))


@dataclass(frozen=True)
class Transform:
    """Harm is done in the transform of one example."""

    harm: Harm

    def __call__(self, example: Any) -> Any:
        if example[0] == AT:
            self.harm()
        return example


@dataclass(frozen=True)
class Collate:
    """Harm is done where the batch with that example is made."""

    harm: Harm

    def __call__(self, examples: list[Any]) -> Any:
        if any(example[0] == AT for example in examples):
            self.harm()
        return np.stack(examples)
