"""Code that raises, or does what it should not."""

from __future__ import annotations

import bdb
import builtins
from typing import Any

import numpy as np


class Own(Exception):
    """With arguments and attributes of its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text


class Final(Exception):
    """Takes no subclasses."""

    def __init_subclass__(cls) -> None:
        raise TypeError("final")


KINDS: dict[str, type[Exception]] = {
    "key": KeyError,
    "value": ValueError,
    "file": FileNotFoundError,
    "unicode": UnicodeDecodeError,
    "attribute": AttributeError,
    "import": ImportError,
    "memory": RecursionError,
    "own": Own,
}


def transform(name: str) -> Any:
    match name:
        case "key":
            return {}["gone"]
        case "value":
            return int("x")
        case "file":
            raise FileNotFoundError(2, "No such file or directory", "gone.png")
        case "unicode":
            return b"\xff".decode()
        case "attribute":
            return name.gone  # type: ignore[attr-defined]  # it raises
        case "import":
            import gone  # type: ignore[import-not-found]  # it raises

            return gone
        case "memory":
            raise RecursionError("too deep")
        case "own":
            raise Own(7, "seven")
        case "stop":
            raise StopIteration
        case "exit":
            raise SystemExit(3)
        case "group":
            raise getattr(builtins, "ExceptionGroup", SystemExit)("several", [KeyError()])
        case "final":
            raise Final
        case "syntax":
            return compile("(", "gone", "eval")
    return name


def stops(example: int) -> Any:
    raise StopIteration


def debugs(example: int) -> Any:
    raise bdb.BdbQuit


class Scratch:
    """Fills one buffer again for each example."""

    def __init__(self) -> None:
        self.buffer = np.full(2, 9.0)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        self.buffer[:] = index
        return self.buffer


class Doubled(Scratch):
    """Changes an array that it holds."""

    def __getitem__(self, index: int) -> Any:
        example = self.buffer
        example *= 2
        return example
