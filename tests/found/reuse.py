"""User code that uses its objects again: every kind of object, in rings of any length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

import stoker

#: Examples of a source; each holds its number and LEAST: 0 is padding, 1 stands beside some.
COUNT, LEAST = 40, 2


@dataclasses.dataclass
class Record:
    value: Any


class Foreign:
    """An array of another library: NumPy reads it where it lies."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.memory


def _torch_ring(size: int) -> Any:
    import torch

    return torch.zeros(size)


def _filled(memory: Any, number: int) -> Any:
    memory[...] = number
    return memory


def _record(memory: Any, number: int) -> Any:
    memory["value"] = number
    return memory


def _nested(memory: Any, number: int) -> Any:
    memory["inner"]["value"][0] = number
    return memory


def _kept_tuple(memory: Any, number: int) -> Any:
    _filled(memory[0], number)
    return memory


def _dataclass(memory: Any, number: int) -> Any:
    memory.value = np.float32(number)
    return memory


def _foreign(memory: Any, number: int) -> Any:
    memory.memory[...] = number
    return memory


def _bytes(memory: Any, number: int) -> Any:
    memory[:] = bytes([number]) * len(memory)
    return np.frombuffer(memory, np.uint8)


def _image(memory: Any, number: int) -> Any:
    memory.paste(number, (0, 0, *memory.size))
    return memory


def _object_array(memory: Any, number: int) -> Any:
    for row in memory:
        row[...] = number
    return memory


def _read_only(memory: Any, number: int) -> Any:
    view = _filled(memory, number)[:]
    view.flags.writeable = False
    return view


def _ragged(size: int) -> Any:
    rows = np.empty(2, object)
    rows[0], rows[1] = np.zeros(size), np.zeros(3)
    return rows


#: How one object is made, and how it is filled with a number.
KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any, int], Any]]] = {
    "dict": (dict, _record),
    "nested containers": (lambda: {"inner": {"value": [0]}}, _nested),
    "list": (lambda: [0, 0], lambda memory, number: memory.__setitem__(slice(None), [number] * 2) or memory),
    "0-d array": (lambda: np.zeros(()), _filled),
    "small array": (lambda: np.zeros(4), _filled),
    "large array": (lambda: np.zeros(1000), _filled),
    "array in a tuple": (lambda: (np.zeros(1000), 1), lambda memory, number: (_filled(memory[0], number), 1)),
    "array in a kept tuple": (lambda: (np.zeros(1000), 1), _kept_tuple),
    "slice": (lambda: np.zeros(1000), lambda memory, number: _filled(memory, number)[1:900]),
    "read-only view": (lambda: np.zeros(1000), _read_only),
    "broadcast": (lambda: np.zeros(4), lambda memory, number: np.broadcast_to(_filled(memory, number), (300, 4))),
    "bytes": (lambda: bytearray(5000), _bytes),
    "memoryview": (lambda: bytearray(5000), lambda memory, number: _bytes(memory, number).data),
    "foreign": (lambda: Foreign(np.zeros(1000)), _foreign),
    "dataclass": (lambda: Record(0), _dataclass),
    "image": (lambda: Image.new("L", (80, 80)), _image),
    "object array": (lambda: _ragged(900), _object_array),
    "torch": (lambda: _torch_ring(1000), lambda memory, number: memory.fill_(number)),
}


class Ring:
    """Gives example after example, in `size` objects in turn."""

    def __init__(self, kind: str, size: int) -> None:
        self.kind, self.size, self.objects = kind, size, None

    def example(self, number: int) -> Any:
        make, fill = KINDS[self.kind]
        if self.objects is None:  # in the worker: what comes with the source is read-only there
            self.objects = [make() for _ in range(self.size)]
        return fill(self.objects[number % self.size], number + LEAST)

    # ── the kinds of user code ───────────────────────────────────────────────────────────────
    def generate(self, shard: stoker.Shard) -> Iterator[Any]:
        for number in shard.split(range(COUNT)):
            yield self.example(number)
            self.example(200 - number)  # user code runs on

    def transform(self, number: int) -> Any:
        return self.example(int(number))

    def many(self, number: int) -> stoker.Many:
        return stoker.Many(self.example(2 * int(number) + more) for more in range(2))

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> Any:
        return self.example(number)


def numbers_of(value: Any) -> set[int]:
    """The numbers that stand in a structure."""
    if isinstance(value, dict):
        return set().union(*map(numbers_of, value.values()))
    if dataclasses.is_dataclass(value):
        return numbers_of(vars(value))
    if isinstance(value, list | tuple):
        return set().union(*map(numbers_of, value))
    array = np.asarray(value)
    if array.dtype == object:
        return set().union(*map(numbers_of, array.reshape(-1)))
    return set(np.unique(array).astype(int).tolist())


def number_of(example: Any) -> int:
    """The number of an example; raises where it holds more than one."""
    (number,) = numbers_of(example) - {0, 1}
    return number - LEAST


def joined(examples: list[Any]) -> Any:
    """A collate function: the number of each example, as it stands in it."""
    return np.array([number_of(example) + LEAST for example in examples])
