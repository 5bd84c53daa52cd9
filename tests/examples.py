"""Sources and transforms for the tests. Workers import this module, so it imports no test tools and no TensorFlow."""

from __future__ import annotations

import builtins
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Pair(NamedTuple):
    left: Any
    right: Any


class Nested:
    """Every container, several dtypes, leaves of odd sizes; the content is a function of the index."""

    def __init__(self, length: int = 100) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": np.full((5, 3), index % 251, np.uint8),
            "pair": Pair(np.float32(index) / 7, [index, index % 2 == 0]),
            "deep": ({"x": np.arange(index, index + 7, dtype=np.float64)}, np.complex64(index + 1j)),
        }


class Squares:
    def __init__(self, length: int = 100) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.full(4, index, np.float32), index * index


class Together(Squares):
    """Answers runs of indices, and refuses single ones."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        raise AssertionError("__getitems__ is there to be asked")

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, Any]]:
        noise = np.random.random()  # one number for the run: it shows how the run was cut
        return [(np.full(4, index + noise, np.float32), index * index) for index in indices]


def noisy(example: Any, rng: np.random.Generator) -> Any:
    """Draws from all sources of randomness that are set for an example."""
    x, y = example
    return x + np.float32(rng.random() + random.random() + random.gauss(0, 1) + np.random.random()), y


class Misbehaving(Squares):
    """Does `what` at one example: see `misbehave`."""

    def __init__(self, what: str, at: int = 37, length: int = 100, flag: Path | None = None) -> None:
        super().__init__(length)
        self.what, self.at, self.flag = what, at, flag

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            if self.flag is not None:  # only the first times: the file counts down
                left = int(self.flag.read_text())
                if not left:
                    return super().__getitem__(index)
                self.flag.write_text(str(left - 1))
            return misbehave(self.what, super().__getitem__(index))
        return super().__getitem__(index)


class UnpicklableError(Exception):
    """Pickles, and then cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def misbehave(what: str, example: Any) -> Any:
    match what:
        case "raise":
            raise KeyError("bad digit")
        case "raise-unpicklable":
            raise UnpicklableError("this", "that")
        case "raise-mute":
            raise MuteError
        case "raise-long":
            raise ValueError("x" * 10_000_000)
        case "sys.exit":
            raise SystemExit(5)
        case "interrupt":
            raise KeyboardInterrupt
        case "os._exit(0)":
            os._exit(0)
        case "SIGKILL" | "SIGSEGV" | "SIGTERM":
            os.kill(os.getpid(), signal.Signals[what])
        case "None":
            return None
        case "set":
            return {1, 2}
        case "object":
            return np.array([object()]), 1
        case "string":
            return "text", 1
        case "structure":
            return {"x": example[0], "y": example[1]}
        case "longer":
            return (*example, 3)
        case "shape":
            return example[0][:3], example[1]
        case "dtype":
            return example[0].astype(np.float64), example[1]
        case "number":
            return example[0], 1.5
        case "huge":
            return example[0], 2**70
        case "datetime":
            return np.datetime64("2026-01-01"), 1
        case "longdouble":
            return np.longdouble(1), 1
        case "fork":
            if os.fork() == 0:
                return example  # the copy goes on as if it were the worker
            os.wait()
        case "print":
            print(f"hello from example {example[1]}")
        case "close-stdin":
            os.close(0)
        case "read-stdin":
            assert os.read(0, 10) == b""
        case _:
            raise AssertionError(what)
    return example


class HostileError(Exception):
    """Does `how` where it should only be told; `__str__` says what it is."""

    def __init__(self, how: str) -> None:
        super().__init__("mine")
        self.how = how

    def __reduce__(self) -> Any:
        if self.how == "exits when it is pickled":
            raise SystemExit(3)
        if self.how == "exits when it is unpickled":
            return sys.exit, (3,)
        return super().__reduce__()

    def __bool__(self) -> bool:
        if self.how == "has no truth":
            raise KeyboardInterrupt
        return True

    def __getattribute__(self, name: str) -> Any:
        if name == "__notes__" and object.__getattribute__(self, "how") == "has no notes":
            raise ValueError(name)
        return super().__getattribute__(name)

    def __str__(self) -> str:
        if self.how == "has no text":
            raise KeyboardInterrupt
        return "mine"


class Raising(Squares):
    """Raises what `make` makes at example 37."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        super().__init__()
        self.make = make

    def __getitem__(self, index: int) -> Any:
        if index == 37:
            raise self.make()
        return super().__getitem__(index)


def many_lines() -> BaseException:
    return ValueError("text\n" * 5_000)


def one_long_line() -> BaseException:
    return ValueError("x" * 10_000_000)


def many_notes() -> BaseException:
    error = ValueError("text")
    for number in range(500):
        error.add_note(f"note {number}")
    return error


def deep_groups() -> BaseException:
    error: Exception = ValueError("text")
    for _ in range(1_500):
        error = builtins.ExceptionGroup("group", [error])
    return error


def wide_group() -> BaseException:
    return builtins.ExceptionGroup("group", [ValueError(number) for number in range(200)])


def long_chain() -> BaseException:
    error = ValueError("root")
    for number in range(100):
        try:
            raise ValueError(number) from error
        except ValueError as raised:
            error = raised
    return error


class Large:
    """One example of 1 MiB after the other; a batch of 68 is large."""

    def __len__(self) -> int:
        return 68 * 5

    def __getitem__(self, n: int) -> Any:
        time.sleep(0.004)  # so that the consumer waits, even on a busy machine
        return np.full(1 << 20, n % 251, np.uint8)


class Labelled(Squares):
    """Points with their class, in the form that a test asks for."""

    def __init__(self, form: str, length: int = 96) -> None:
        super().__init__(length)
        self.form = form

    def __getitem__(self, index: int) -> Any:
        x = np.random.default_rng(index).normal(size=4).astype(np.float32)
        y = np.int32(x.sum() > 0)
        match self.form:
            case "x, y":
                return x, y
            case "x, y, weight":
                return x, y, np.float32(index % 2)
            case "dict":
                return {"one": x[:2], "two": x[2:]}, y
            case _:
                return x
