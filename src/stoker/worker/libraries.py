"""Random states beside Python's and NumPy's global ones: of libraries, once they are imported, and of objects.

Libraries are watched for: their states are set as soon as they are there, so that not even the example
whose code imports one differs. Objects are generators that the user's own objects hold (as albumentations'
transforms do): they are found when these are pickled.
"""

from __future__ import annotations

import importlib.machinery
import random
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np

#: Of a 64-bit seed; a multiple of it makes another one for each object.
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
_PCG_INCREMENT = (0x5851F42D4C957F2D14057B7EF767814F << 1 | 1) & ((1 << 128) - 1)

if TYPE_CHECKING:  # who needs no `numpy.random` does not wait for it: NumPy imports it when it is first looked at
    Held: TypeAlias = random.Random | np.random.Generator | np.random.RandomState
SetSeed = Callable[[int], Any]


def set_torch_seed(module: ModuleType) -> SetSeed:
    """What sets PyTorch's state."""
    set_seed: SetSeed = module.default_generator.manual_seed  # 60 times as quick as `torch.manual_seed`
    return set_seed


def _tensorflow(module: ModuleType) -> SetSeed:
    return lambda seed: module.random.set_seed(seed & 0x7FFFFFFF)


_LIBRARIES: dict[str, Callable[[ModuleType], SetSeed]] = {"torch": set_torch_seed, "tensorflow": _tensorflow}


class Watch:
    """Calls `found` with what sets a library's seed, when the library has been imported."""

    def __init__(self, found: Callable[[SetSeed], None]) -> None:
        self._found = found
        self._names = set(_LIBRARIES)
        for name in list(self._names):
            if name in sys.modules:
                self.imported(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Whatever the others find, to be told of once it is loaded."""
        if name not in self._names:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = cast("Any", _Told(spec.loader, self))
                return spec
        return None

    def imported(self, module: ModuleType) -> None:
        """A library is there."""
        self._names.discard(module.__name__)
        self._found(_LIBRARIES[module.__name__](module))


class _Told:
    """A loader that tells when it has loaded; else as the one that it stands for."""

    def __init__(self, loader: Any, watch: Watch) -> None:
        self._loader, self._watch = loader, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """See `importlib.abc.Loader`."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        self._loader.exec_module(module)
        self._watch.imported(module)


# ── generators that objects hold ─────────────────────────────────────────────────────────────
#: Those that came with the program, in the order in which it was unpickled.
came_with_program: list[Held] = []


def is_held(value: object) -> TypeGuard[Held]:
    """Whether it is a generator of random numbers with a state of its own."""
    if "numpy.random" in sys.modules and isinstance(value, np.random.Generator | np.random.RandomState):
        return True
    return isinstance(value, random.Random)


def reduced(value: Any) -> Any:
    """How a generator that an object holds is pickled, so that the worker knows of it; None for anything else."""
    if not is_held(value):
        return None
    function, arguments, *rest = cast("tuple[Any, ...]", value.__reduce__())
    return _rebuilt, (function, arguments, rest[0] if rest else None)


def _rebuilt(function: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> Any:
    value = function(*arguments)
    if state is not None:
        value.__setstate__(state)
    came_with_program.append(value)
    return value


def seed_held(held: Sequence[Held], seed: int) -> None:
    """Give each of them a state of its own, made of this seed."""
    for number, value in enumerate(held, 1):
        its = (seed + number * _GOLDEN) & _MASK
        if isinstance(value, np.random.Generator):
            _seed_generator(value.bit_generator, its)
        else:
            value.seed(its if isinstance(value, random.Random) else its & 0xFFFFFFFF)


def _seed_generator(bits: Any, seed: int) -> None:
    if type(bits) is np.random.PCG64:  # what `default_rng` gives: twenty times quicker than to make a new one
        inner: Any = {"state": seed << 64 | (seed * _GOLDEN & _MASK), "inc": _PCG_INCREMENT}
        bits.state = {"bit_generator": "PCG64", "state": inner, "has_uint32": 0, "uinteger": 0}
        bits.random_raw()  # mixes what lies in the low bits into the high ones
    else:
        bits.state = type(bits)(seed).state


def states_of(held: Sequence[Held]) -> list[Any]:
    """Their states, for `restore`."""
    return [
        value.bit_generator.state
        if isinstance(value, np.random.Generator)
        else value.getstate()
        if isinstance(value, random.Random)
        else value.get_state()
        for value in held
    ]


def restore(held: Sequence[Held], states: Sequence[Any]) -> None:
    """Set their states back."""
    for value, state in zip(held, states, strict=True):
        if isinstance(value, np.random.Generator):
            value.bit_generator.state = state
        elif isinstance(value, random.Random):
            value.setstate(state)
        else:
            value.set_state(state)
