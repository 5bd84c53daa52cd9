"""Random generators held by the user's objects: found when the objects are pickled, seeded in the workers."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np

#: Added to a 64-bit seed once for each object, so that every object gets a different seed.
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
_PCG_INCREMENT = (0x5851F42D4C957F2D14057B7EF767814F << 1 | 1) & ((1 << 128) - 1)

if TYPE_CHECKING:  # at run time, naming `numpy.random` would import it, and not every user needs it
    #: Or a generator of PyTorch or TensorFlow, which are not typed here.
    Held: TypeAlias = random.Random | np.random.Generator | np.random.RandomState | Any

#: Generators that arrived with the program, in unpickling order.
came_with_program: list[Held] = []


def is_held(value: object) -> TypeGuard[Held]:
    """True for a random generator with its own state."""
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)
    return _is_numpys(value) or _is_torchs(value) or _is_tensorflows(value)


def _is_numpys(value: object) -> bool:
    return "numpy.random" in sys.modules and isinstance(value, np.random.Generator | np.random.RandomState)


def _is_torchs(value: object) -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Generator)


def _is_tensorflows(value: object) -> bool:
    module: Any = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    return module is not None and isinstance(value, module.Generator)


def reduced(value: Any) -> Any:
    """Reduce a random generator so that unpickling registers it in the worker; None for anything else."""
    if type(value) is random.SystemRandom:
        return random.SystemRandom, ()  # it has no state to pickle
    if not is_held(value):
        return None
    if _is_tensorflows(value):
        return _rebuilt, (type(value).from_state, (value.state.numpy(), int(value.algorithm)), None)
    function, arguments, *rest = cast("tuple[Any, ...]", value.__reduce__())
    return _rebuilt, (function, arguments, rest[0] if rest else None)


def _rebuilt(function: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> Any:
    value = function(*arguments)
    if state is not None:
        value.__setstate__(state)
    came_with_program.append(value)
    return value


def seed_held(held: Sequence[Held], seed: int) -> None:
    """Seed each generator differently, from one seed."""
    for number, value in enumerate(held, 1):
        its = (seed + number * _GOLDEN) & _MASK
        if isinstance(value, random.Random):
            value.seed(its)
        elif isinstance(value, np.random.Generator):
            _seed_generator(value.bit_generator, its)
        elif isinstance(value, np.random.RandomState):
            value.seed(its & 0xFFFFFFFF)
        elif _is_torchs(value):
            value.manual_seed(its)
        else:
            value.reset_from_seed(its >> 1)


def _seed_generator(bits: Any, seed: int) -> None:
    if type(bits) is np.random.PCG64:  # the type in `default_rng`: twenty times faster than making a new one
        inner: Any = {"state": seed << 64 | (seed * _GOLDEN & _MASK), "inc": _PCG_INCREMENT}
        bits.state = {"bit_generator": "PCG64", "state": inner, "has_uint32": 0, "uinteger": 0}
        bits.random_raw()  # mixes the low bits into the high ones
    else:
        bits.state = type(bits)(seed).state


def states_of(held: Sequence[Held]) -> list[Any]:
    """The generators' states, for `restore`."""
    return [_state_of(value) for value in held]


def _state_of(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    return value.state.numpy() if _is_tensorflows(value) else value.get_state()


def restore(held: Sequence[Held], states: Sequence[Any]) -> None:
    """Restore the generators' states."""
    value: Any
    for value, state in zip(held, states, strict=True):
        if isinstance(value, np.random.Generator):
            value.bit_generator.state = state
        elif isinstance(value, random.Random):
            value.setstate(state)
        elif _is_tensorflows(value):
            value.reset(state)
        else:
            value.set_state(state)
