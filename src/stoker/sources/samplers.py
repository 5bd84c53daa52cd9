"""Samplers, PyTorch's and others, as orders: iterated anew in each epoch, with the same random numbers in each run."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from stoker.plan.orders import DrawnOrder

#: How deep samplers may lie in each other: a batch sampler holds a sampler, which may hold another.
_DEPTH = 4


def is_sampler(given: Any) -> bool:
    """True for an object that is iterated for the indices of an epoch. Does not import PyTorch."""
    if _is_torch(given, "Sampler"):
        return True
    if isinstance(given, type | set | frozenset | dict | str | bytes) or hasattr(type(given), "__array__"):
        return False
    kind = type(given)
    return hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__") and not hasattr(kind, "__next__")


class SamplerOrder(DrawnOrder):
    """The order that a sampler gives: indices or batches.

    Before each epoch, everything that it may draw from is seeded: `random`, NumPy's and PyTorch's global states, and
    the generators that it or a sampler within it holds. Afterwards, all have the states that they had.

    Args:
        sampler: the user's object.
    """

    repeatable = False

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self.name, self.count = f"a {type(sampler).__name__}", _length(sampler)

    def __call__(self, epoch: int, rng: np.random.Generator) -> Iterator[Any]:
        parts = list(_parts(self._sampler, _DEPTH))
        for part in parts:
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)
        with _seeded([value for part in parts for value in _values(part)], int(rng.integers(1 << 63))):
            yield from self._sampler


def _length(sampler: Any) -> int | None:
    """The number of its indices or batches, if it knows; many have a `__len__` that raises."""
    try:
        return len(sampler)
    except Exception:
        return None


def _parts(sampler: Any, depth: int) -> Iterator[Any]:
    """The sampler, and those that it holds."""
    yield sampler
    if depth:
        for value in _values(sampler):
            if is_sampler(value):
                yield from _parts(value, depth - 1)


def _values(part: Any) -> list[Any]:
    return list(getattr(part, "__dict__", {}).values())


@contextmanager
def _seeded(values: list[Any], seed: int) -> Iterator[None]:
    """Seed the global random states and the generators among `values`; they get their states back at the end."""
    with ExitStack() as ends:
        ends.callback(random.setstate, random.getstate())
        random.seed(seed)
        ends.callback(np.random.set_state, np.random.get_state())
        np.random.seed(seed & 0xFFFFFFFF)
        if (torch := sys.modules.get("torch")) is not None:
            values = [torch.default_generator, *values]
        for value in values:
            if (put_back := _seed(value, seed)) is not None:
                ends.callback(put_back)
        yield


def _seed(value: Any, seed: int) -> Callable[[], Any] | None:
    """Seed a generator of random numbers. Returns the function that restores its state; None for anything else."""
    if isinstance(value, np.random.Generator):
        bits, state = value.bit_generator, value.bit_generator.state
        bits.state = type(bits)(seed).state
        return lambda: setattr(bits, "state", state)
    if isinstance(value, np.random.RandomState):
        kept = value.get_state()
        value.seed(seed & 0xFFFFFFFF)
        return lambda: value.set_state(kept)
    if isinstance(value, random.Random):
        before = value.getstate()
        value.seed(seed)
        return lambda: value.setstate(before)
    if _is_torch(value, "Generator"):
        saved = value.get_state()
        value.manual_seed(seed)
        return lambda: value.set_state(saved)
    return None


def _is_torch(value: Any, name: str) -> bool:
    """True for an instance of the class of PyTorch with this name, or of a class derived from it."""
    return any(
        kind.__name__ == name and str(kind.__module__).partition(".")[0] == "torch" for kind in type(value).__mro__
    )
