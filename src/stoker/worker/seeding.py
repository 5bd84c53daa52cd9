"""The same random numbers for an example, whichever worker makes it.

Before each example `random`, NumPy's global state and the `rng` that a transform may ask for
are set from (seed, epoch, example). Seeding `random` costs 3.5 µs, more than reading a small
row, so in a worker it happens at the first draw after `begin`: see `LazyRandom`.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stoker.plan.permutation import mix, mix_array

if TYPE_CHECKING:
    from types import ModuleType


class LazyRandom(random.Random):
    """A `random.Random` that takes on the pending seed when it is first drawn from.

    All methods of `random.Random` draw through `random` and `getrandbits`; the ones here are
    those two and the ones that read or replace the state.
    """

    pending: int | None = None

    def _settle(self) -> None:
        if self.pending is not None:
            value, self.pending = self.pending, None
            super().seed(value)

    def random(self) -> float:
        self._settle()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self._settle()
        return super().getrandbits(k)

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        self._settle()  # before it looks at the second number kept from the last call
        return super().gauss(mu, sigma)

    def seed(self, a: Any = None, version: int = 2) -> None:
        self.pending = None
        super().seed(a, version)

    def getstate(self) -> tuple[Any, ...]:
        self._settle()
        return super().getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        self.pending = None
        super().setstate(state)


def install_lazy_random() -> LazyRandom:
    """Make the functions of the module `random` draw from a `LazyRandom`.

    To be called before user code, which may import those functions, is loaded; never in the trainer.
    """
    lazy = LazyRandom(0)
    for name, value in list(vars(random).items()):
        if isinstance(getattr(value, "__self__", None), random.Random):
            setattr(random, name, getattr(lazy, name))
    return lazy


class Seeder:
    """Sets all random states for one example after the other.

    Args:
        seed: the Loader's seed.
        lazy: what the module `random` draws from, in a worker process; None where it must not be replaced.
    """

    def __init__(self, seed: int, lazy: LazyRandom | None) -> None:
        self._seed = seed
        self._lazy = lazy
        self._numpy: ModuleType | None = None
        self._generator: np.random.Generator | None = None
        self._philox: dict[str, Any] = {}

    def seeds(self, epoch: int, indices: npt.NDArray[np.int64]) -> list[int]:
        """A seed of 64 bits for each of the examples `indices` in this epoch."""
        return mix_array(indices.astype(np.uint64), mix(self._seed, epoch, 1)).tolist()

    def begin(self, seed: int) -> None:
        """Set the global states to what the example with this seed gets."""
        if self._lazy is not None:
            self._lazy.pending = seed
        else:
            random.seed(seed)
        if self._numpy is not None:
            self._numpy.seed(seed & 0xFFFFFFFF)

    def watch(self) -> bool:
        """Whether user code imported `numpy.random` since the last call; what met its unseeded state must be made again."""
        known, self._numpy = self._numpy, sys.modules.get("numpy.random")
        return known is not self._numpy

    def rng(self, seed: int) -> np.random.Generator:
        """The generator for the example with this seed: the one object, set anew."""
        if self._generator is None:
            philox = np.random.Philox(key=0)
            self._generator = np.random.Generator(philox)
            self._philox = dict(philox.state)
        self._philox["state"] = {"counter": np.zeros(4, np.uint64), "key": np.array([seed, 0], np.uint64)}
        self._generator.bit_generator.state = self._philox
        return self._generator


class KeptState:
    """Puts the trainer's own random states back after user code ran in its process (inline engine)."""

    def __enter__(self) -> None:
        self._random = random.getstate()
        self._numpy = np.random.get_state()

    def __exit__(self, *exc: object) -> None:
        random.setstate(self._random)
        np.random.set_state(self._numpy)
