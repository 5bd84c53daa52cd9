"""Random generators that imported modules made without a seed, as `rng = np.random.default_rng()` does.

In interpreters of their own, each worker would have other numbers. Forked workers would all draw the same ones, so each
gives them a new seed. Generators that were given a seed keep it, as they do in fresh interpreters.
"""

from __future__ import annotations

import gc
import random
import sys
import weakref
from typing import Any

#: The entropy that NumPy draws from the system has 128 bits. A seed that a person writes is shorter.
_PERSONAL = 1 << 64


class UnseededGenerators:
    """Finds the generators that are made without a seed while modules are imported.

    Create it before the modules are imported, call `found` after that, and `seed` in each forked worker.
    """

    def __init__(self) -> None:
        self._randoms: list[weakref.ref[random.Random]] = []
        self._bits: list[Any] = []
        seed = self._seed = random.Random.seed

        def noted(generator: random.Random, a: Any = None, version: int = 2) -> None:
            seed(generator, a, version)
            if a is None:
                self._randoms.append(weakref.ref(generator))

        random.Random.seed = noted  # type: ignore[method-assign, assignment]  # put back by `found`

    def found(self) -> None:
        """Note NumPy's generators, and stop noting others."""
        random.Random.seed = self._seed  # type: ignore[method-assign]  # as it was
        numpys = sys.modules.get("numpy.random")
        if numpys is None:
            return
        for thing in gc.get_objects():
            if isinstance(thing, numpys.BitGenerator):
                entropy = getattr(thing.seed_seq, "entropy", None)
                if isinstance(entropy, int) and entropy >= _PERSONAL:
                    self._bits.append(thing)

    def seed(self) -> None:
        """Give each of them a new seed, from the system's entropy."""
        for reference in self._randoms:
            if (generator := reference()) is not None:
                generator.seed()
        for bits in self._bits:
            bits.state = type(bits)().state
