"""Samplers, PyTorch's and others, as orders: iterated anew in each epoch, with the same random numbers in each run."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from stoker.errors import OptionError
from stoker.plan.orders import DrawnOrder

#: How deep samplers may lie in each other: a batch sampler holds a sampler, which may hold another.
_DEPTH = 4
#: Modules of containers, of which a copy of a sampler has its own. Other objects that have items are datasets.
_CONTAINERS = {"builtins", "collections", "array", "numpy", "torch"}


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

    It may keep a state of its own, such as a counter of epochs or a list that it shuffles in place. So it is iterated
    once for each epoch, in turn (`due`). PyTorch's own samplers keep none.

    Args:
        sampler: the user's object.
        dataset: the user's dataset, which copies of the sampler share.
    """

    repeatable = False

    def __init__(self, sampler: Any, dataset: Any = None) -> None:
        self._sampler, self._dataset = sampler, dataset
        self.name, self.count = f"a {type(sampler).__name__}", _length(sampler)
        self.due = None if all(map(_is_stateless, _parts(sampler, _DEPTH))) else 0

    def copy(self) -> SamplerOrder | None:
        shared = [self._dataset]
        for part in _parts(self._sampler, _DEPTH):
            shared += [value for value in _values(part) if _is_dataset(value)]
        try:
            return SamplerOrder(copy.deepcopy(self._sampler, {id(value): value for value in shared}), self._dataset)
        except Exception:  # it holds an iterator, a lock, or the like
            return None

    def __call__(self, epoch: int, rng: np.random.Generator) -> Iterator[Any]:
        if self.due is not None:
            self.due = epoch + 1
        parts = list(_parts(self._sampler, _DEPTH))
        for part in parts:
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)
        with _seeded([value for part in parts for value in _values(part)], int(rng.integers(1 << 63))):
            yield from self._sampler


def require_whole(sampler: Any, shard_count: int, name: str) -> None:
    """Raise `OptionError` if a sampler gives a part of the data for one trainer, and `shard_count` divides that again.

    Args:
        sampler: the user's object.
        shard_count: the Loader's argument.
        name: where the sampler was given, for the message.
    """
    for part in _parts(sampler, _DEPTH) if shard_count > 1 else ():
        replicas = getattr(part, "num_replicas", None)
        if isinstance(replicas, int) and replicas > 1:
            raise OptionError(
                f"{name} has a {type(part).__name__} with num_replicas={replicas}, which gives each trainer its part "
                f"of the data, and shard_count={shard_count} would divide that part once more. Use only one of them: "
                "omit shard_count and shard_index (batch_size is then that of each trainer), or pass shuffle=True, or "
                "a sampler of all examples, in place of this one."
            )


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


def _is_stateless(part: Any) -> bool:
    """True for PyTorch's own samplers: all that they give depends on their arguments, `set_epoch` and random states."""
    return type(part).__module__ in ("torch.utils.data.sampler", "torch.utils.data.distributed")


def _is_dataset(value: Any) -> bool:
    """True for an object that has items and is not a mere container of them."""
    return hasattr(type(value), "__getitem__") and not any(
        kind is not object and kind.__module__ in _CONTAINERS for kind in type(value).__mro__
    )


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
