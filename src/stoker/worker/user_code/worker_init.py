"""Calls the user's `worker_init`, once per worker and before any other user code is loaded."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from stoker.plan.permutation import mix
from stoker.worker.user_code.current import Current, telling
from stoker.worker.user_code.libraries import LIBRARIES, ImportWatch, SetSeed

#: Separates its random numbers from those of examples.
_WORD = 0x1217


class InitRaised(Exception):
    """`worker_init` raised; the cause of this exception is the original one."""


def initialise(
    init: Callable[[], Any],
    seed: int | None,
    worker: int | None,
    libraries: Mapping[str, Callable[[ModuleType], SetSeed]] = LIBRARIES,
) -> None:
    """Call `init`, with all random states set from the Loader's seed: identical in every worker.

    Args:
        init: the user's function.
        seed: the Loader's seed, or None if random states must not be changed.
        worker: number of this worker process; None in the trainer.
        libraries: the libraries whose random states are set too.
    """
    its = mix(seed or 0, _WORD)
    with telling(lambda: Current(0, None, None, worker, its)):
        if seed is None:
            init()
            return
        import numpy as np

        random.seed(its)
        np.random.seed(its & 0xFFFFFFFF)

        def found(set_seed: SetSeed) -> None:
            set_seed(its)

        watch = ImportWatch(found, libraries)
        try:
            init()
        finally:
            sys.meta_path.remove(watch)
