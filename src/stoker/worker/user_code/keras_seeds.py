"""Sets Keras' random states: its global `SeedGenerator` and those of layers, whichever object holds them.

A generator is set when an example first draws from it. Its state is derived from the example's seed and the number of
other generators that the example has drawn from. So it does not matter when a generator was made or how the worker has
used it. Compiled functions (`tf.function`) draw without running Python, so their generators are set before each
example.
"""

from __future__ import annotations

import random
import sys
import threading
import weakref
from types import ModuleType
from typing import Any

import numpy as np

from stoker.plan.permutation import mix

#: Keras' module with the class `SeedGenerator`.
MODULE = "keras.src.random.seed_generator"
#: First number of generators used by compiled functions. Generators that Python draws from are counted from 0.
_COMPILED = 1 << 20
_compiled: list[weakref.ref[Any]] = []


class KerasSeeds:
    """Sets Keras' generators for each example, in the threads that run user code.

    In a worker, these are all threads. In the trainer, it is the thread that enters the context; all states are
    restored when the context ends.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module, self._seed = module, 0
        self._set: dict[int, Any] = {}
        self._kept: list[tuple[Any, Any]] | None = None
        self._defaults = random.Random(0)
        self._is_seeded = False

    def begin(self, seed: int) -> None:
        """Begin the example with this seed."""
        self._seed, self._is_seeded = seed, False
        self._set.clear()
        for number, reference in enumerate(_compiled):
            if (generator := reference()) is not None:
                self._assign(generator, _COMPILED + number)

    def drawn_from(self, generator: Any) -> None:
        """Set this generator, from which user code is about to draw, unless it is already set."""
        if id(generator) in self._set or _in_stateless_scope():
            return
        tf = sys.modules.get("tensorflow")
        if tf is None or tf.executing_eagerly():
            self._assign(generator, len(self._set))
            self._set[id(generator)] = generator
        elif not any(reference() is generator for reference in _compiled):
            _compiled.append(weakref.ref(generator))
            with tf.init_scope():
                self._assign(generator, _COMPILED + len(_compiled) - 1)

    def randint(self, low: int, high: int) -> int:
        """The seed of a generator made without one. Not drawn from `random`, which the example may use itself."""
        if not self._is_seeded:
            self._defaults.seed(mix(self._seed, _COMPILED))
            self._is_seeded = True
        return self._defaults.randint(low, high)

    def _assign(self, generator: Any, number: int) -> None:
        if self._kept is not None and not any(generator is kept for kept, _ in self._kept):
            state = np.array(generator.backend.convert_to_numpy(generator.state.value))
            if state.size:  # else it was just made, in a function that is being compiled
                self._kept.append((generator, state))
        its = mix(self._seed, number)
        generator.state.assign(np.array([its & 0x7FFFFFFF, its >> 34], np.int64))  # either fits into an int32

    def everywhere(self) -> None:
        """Set generators in all threads of this process."""
        _install(self._module)
        _at_work[None] = self

    def __enter__(self) -> None:
        with _installing:
            if not _at_work:
                _install(self._module)
            self._kept = []
            _at_work[threading.get_ident()] = self

    def __exit__(self, *exc: object) -> None:
        with _installing:
            del _at_work[threading.get_ident()]
            if not _at_work:
                _uninstall(self._module)
        self._set.clear()
        kept, self._kept = self._kept or [], None
        for generator, state in kept:
            generator.state.assign(state)


#: The `KerasSeeds` that sets the generators in a thread, by thread identifier; None stands for all other threads.
_at_work: dict[int | None, KerasSeeds] = {}
_installing = threading.Lock()


def _here() -> KerasSeeds | None:
    return _at_work.get(threading.get_ident()) or _at_work.get(None)


def begin_here(seed: int) -> None:
    """The example with this seed begins, in this thread."""
    if (seeds := _here()) is not None:
        seeds.begin(seed)


def _in_stateless_scope() -> bool:
    """True if the caller holds Keras' states as values, as in a function that JAX compiles."""
    return bool(sys.modules["keras.src.backend.common.stateless_scope"].in_stateless_scope())


class _Defaults:
    """Replaces the module `random` in Keras' module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)

    def randint(self, low: int, high: int) -> int:
        return (_here() or random).randint(low, high)


def _install(module: Any) -> None:
    """Make Keras' generators report draws."""
    kind = module.SeedGenerator
    plain = kind.next

    def next(self: Any, ordered: bool = True) -> Any:
        if (seeds := _here()) is not None:
            seeds.drawn_from(self)
        return plain(self, ordered=ordered)

    next._stoker_plain = plain  # type: ignore[attr-defined]  # of a function of ours
    kind.next, module.python_random = next, _Defaults()


def _uninstall(module: Any) -> None:
    module.SeedGenerator.next, module.python_random = module.SeedGenerator.next._stoker_plain, random
