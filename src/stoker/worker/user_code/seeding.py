"""Gives an example the same random numbers, whichever worker makes it.

Before each example, `random`, NumPy's global state and the `rng` that a transform may request are set from
(seed, epoch, example). Most code draws from none of them, and seeding costs more than reading a small row (3.5 µs and
1.4 µs). So only code that draws pays for it:

- `random` is seeded at the first draw after `begin` (`LazyRandom`);
- NumPy's state is not set until a task has drawn from it. That task is repeated, with seeding before each example, and
  all later tasks are seeded too.

PyTorch's and TensorFlow's states are set if user code has imported these libraries (`libraries`). The states of
generators held by user objects are set as well.
"""

from __future__ import annotations

import ctypes
import random
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stoker.plan.permutation import mix, mix_array
from stoker.protocol.random_objects import restore, seed_held, states_of
from stoker.worker.user_code.keras_seeds import MODULE as KERAS
from stoker.worker.user_code.keras_seeds import KerasSeeds
from stoker.worker.user_code.libraries import ImportWatch, SetSeed, set_torch_seed

if TYPE_CHECKING:
    from types import ModuleType

    from stoker.protocol.random_objects import Held


class LazyRandom(random.Random):
    """A `random.Random` that applies its pending seed at the first draw.

    All methods of `random.Random` draw through `random` and `getrandbits`. This class overrides those two and the
    methods that read or replace the state.
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
        self._settle()  # before it uses the second number kept from the last call
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

    Call this before user code is loaded, as it may import those functions. Never call it in the trainer.
    """
    lazy = LazyRandom(0)
    for name, value in list(vars(random).items()):
        if isinstance(getattr(value, "__self__", None), random.Random):
            setattr(random, name, getattr(lazy, name))
    return lazy


def _telling(state: memoryview) -> tuple[int, int, int]:
    """The part of the Mersenne Twister's state that reveals whether it was drawn from: two words and the position."""
    return state[0], state[1], state[624]


def _global_state() -> npt.NDArray[np.uint32]:
    """A view of the 624 words and the position of NumPy's global Mersenne Twister."""
    cells = ctypes.c_uint32 * 625
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # public, and missing in NumPy's stubs
    return np.ctypeslib.as_array(cells.from_address(generator.ctypes.state_address))


class Seeder:
    """Sets all random states before each example.

    Args:
        seed: the Loader's seed.
        lazy: the generator behind the module `random` in a worker process; None where it must not be replaced.
        seeds_globals: True to set global states; otherwise only the `rng` is seeded.
        held: generators held by user objects.

    Attributes:
        seed: seed of the current example.
    """

    def __init__(
        self, seed: int, lazy: LazyRandom | None, *, seeds_globals: bool = True, held: Sequence[Held] = ()
    ) -> None:
        self._seed, self._globals, self._held = seed, seeds_globals, list(held)
        self.seed = 0
        self._lazy = lazy if seeds_globals else None
        self._libraries: list[SetSeed] = []
        if not seeds_globals and lazy is not None:
            lazy.seed()  # as without Stoker
        self._numpy: ModuleType | None = None  # `numpy.random`, once a task has drawn from its global state
        self._watched: memoryview | None = None
        self._before = (0, 0, 0)
        self._is_trying = False
        self._generator: np.random.Generator | None = None
        self._philox: dict[str, Any] = {}
        self._keyed: int | None = None  # the epoch that `_key` is of
        self._key = 0
        self._note()

    def _note(self) -> None:
        """Note whether `begin` must do more than set the pending seed of the module `random`. Usually it need not."""
        others = self._lazy is None or self._numpy is not None or self._libraries or self._held
        self._has_more = self._globals and bool(others)

    def seeds(self, epoch: int, indices: npt.NDArray[np.int64]) -> list[int]:
        """The 64-bit seeds of the examples `indices` in this epoch."""
        if self._keyed != epoch:
            self._keyed, self._key = epoch, mix(self._seed, epoch, 1)
        seeds: list[int] = mix_array(indices.astype(np.uint64), self._key).tolist()
        return seeds

    def of_batch(self, epoch: int, *words: int) -> int:
        """The seed for work on a whole batch, which `words` identify within the epoch."""
        return mix(self._seed, epoch, 8, *words)

    def found(self, set_seed: SetSeed) -> None:
        """Register the seed function of a library with its own random state, and apply the current seed."""
        self._libraries.append(set_seed)
        self._note()
        set_seed(self.seed)

    def forget_libraries(self) -> None:
        """Forget all libraries, which will be registered again."""
        self._libraries.clear()
        self._note()

    def hold(self, held: Sequence[Held]) -> None:
        """From now on, set these generators held by user objects."""
        self._held = list(held)
        self._note()

    def begin_task(self) -> None:
        """Note NumPy's global state, to detect draws from it."""
        if self._globals and self._numpy is None and self._watched is None and "numpy.random" in sys.modules:
            self._watched = _global_state().data.cast("B").cast("I")
        if self._watched is not None:
            self._before = _telling(self._watched)

    def must_redo(self) -> bool:
        """True if the task that is ending drew from NumPy's unseeded state. Repeat it: everything is seeded now."""
        if not self._globals or self._numpy is not None or "numpy.random" not in sys.modules:
            return False
        if self._watched is not None and _telling(self._watched) == self._before:
            return False
        self._numpy = sys.modules["numpy.random"]
        self._note()
        return True

    def seed_all(self) -> None:
        """From now on, set NumPy's global state before each example. Needed where a task cannot be repeated."""
        if not self._globals:
            return
        import numpy.random

        self._numpy = numpy.random
        self._note()

    @property
    def draws(self) -> bool:
        """True if NumPy's global state is set before each example."""
        return self._numpy is not None

    def seed_for_now(self) -> None:
        """Set NumPy's global state before each example until `settle`: these examples are not made again."""
        self._is_trying = self._globals and self._numpy is None
        self.seed_all()

    def settle(self) -> None:
        """Stop setting NumPy's global state, unless an example has drawn from it."""
        if self._is_trying:
            self._is_trying, self._numpy = False, None
            self._note()

    def made(self, seed: int) -> None:
        """Check whether the example made with this seed drew from NumPy's global state."""
        if self._is_trying and self._numpy is not None:
            state = _global_state().data.cast("B").cast("I")
            came = _telling(state)
            self._numpy.seed(seed & 0xFFFFFFFF)
            self._is_trying = came == _telling(state)

    def begin(self, seed: int) -> None:
        """Set the global states for the example with this seed."""
        self.seed = seed
        if self._lazy is not None:
            self._lazy.pending = seed
        if self._has_more:
            self._begin_more(seed)

    def _begin_more(self, seed: int) -> None:
        """Set the states other than that of `LazyRandom`."""
        if self._lazy is None:
            random.seed(seed)
        if self._numpy is not None:
            self._numpy.seed(seed & 0xFFFFFFFF)
        if self._libraries:
            for set_seed in self._libraries:
                set_seed(seed)
        if self._held:
            seed_held(self._held, seed)

    def rng(self, seed: int) -> np.random.Generator:
        """The generator for the example with this seed: always the same object, seeded again."""
        if self._generator is None:
            philox = np.random.Philox(key=0)
            self._generator = np.random.Generator(philox)
            self._philox = dict(philox.state)
        self._philox["state"] = {"counter": np.zeros(4, np.uint64), "key": np.array([seed, 0], np.uint64)}
        self._generator.bit_generator.state = self._philox
        return self._generator


class _NumpyState:
    """Saves and restores NumPy's global state.

    Reading and setting it takes 130 µs, and most user code does not touch it. So the words of the generator are
    compared first. They do not include the normal number that NumPy keeps for the next call; if there is none, only a
    draw can create one.
    """

    def __init__(self) -> None:
        self._generator: Any = None
        self._cells: npt.NDArray[np.uint32] | None = None
        self._seen = b""
        self._state: Any = None

    def keep(self) -> None:
        """Save the state."""
        if self._is_unchanged():
            return
        self._generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # as above
        self._state = np.random.get_state()
        is_known = isinstance(self._generator, np.random.MT19937) and not self._state[3]
        self._cells = _global_state() if is_known else None
        self._seen = b"" if self._cells is None else self._cells.tobytes()

    def put_back(self) -> None:
        """Restore the saved state."""
        if not self._is_unchanged():
            np.random.set_state(self._state)

    def _is_unchanged(self) -> bool:
        """True if the state certainly equals the saved one."""
        if self._cells is None or np.random.get_bit_generator() is not self._generator:  # type: ignore[attr-defined]
            return False
        return self._cells.tobytes() == self._seen


class KeptState:
    """Restores the trainer's own random states after user code has run in its process (inline engine).

    Args:
        held: generators held by user objects.
        seeder: notified of libraries, including those imported in the meantime.
    """

    def __init__(self, held: Sequence[Held], seeder: Seeder) -> None:
        self._held, self._seeder, self._numpy = held, seeder, _NumpyState()
        self._libraries: dict[str, Any] = {}

    def __enter__(self) -> None:
        with ExitStack() as ends:
            ends.callback(restore, self._held, states_of(self._held))
            ends.callback(random.setstate, random.getstate())
            self._numpy.keep()
            ends.callback(self._numpy.put_back)
            self._seeder.forget_libraries()
            self._ends = ends
            libraries = {"torch": self._torch, KERAS: self._keras}
            ends.callback(ImportWatch(self._seeder.found, libraries, thread=threading.get_ident()).end)
            self._ends = ends.pop_all()

    def __exit__(self, *exc: object) -> None:
        self._ends.close()

    def _torch(self, module: ModuleType) -> SetSeed:
        self._ends.callback(module.default_generator.set_state, module.default_generator.get_state())
        return set_torch_seed(module)

    def _keras(self, module: ModuleType) -> SetSeed:
        seeds: KerasSeeds = self._libraries.setdefault(KERAS, KerasSeeds(module))
        self._ends.enter_context(seeds)
        return seeds.begin
