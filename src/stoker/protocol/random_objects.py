"""Generators of random numbers that the user's objects hold: found when these are pickled, and seeded in workers."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np

#: Of a 64-bit seed; a multiple of it makes another one for each object.
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
_PCG_INCREMENT = (0x5851F42D4C957F2D14057B7EF767814F << 1 | 1) & ((1 << 128) - 1)

if TYPE_CHECKING:  # who needs no `numpy.random` does not wait for it: NumPy imports it when it is first looked at
    #: Or one of PyTorch's or TensorFlow's, which have no types here.
    Held: TypeAlias = random.Random | np.random.Generator | np.random.RandomState | Any

#: Those that came with the program, in the order in which it was unpickled.
came_with_program: list[Held] = []


def is_held(value: object) -> TypeGuard[Held]:
    """Whether it is a generator of random numbers with a state of its own."""
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
    """How a generator that an object holds is pickled, so that the worker knows of it; None for anything else."""
    if type(value) is random.SystemRandom:
        return random.SystemRandom, ()  # it has no state, and so none that could be pickled
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
    """Give each of them a state of its own, made of this seed."""
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
    if type(bits) is np.random.PCG64:  # what `default_rng` gives: twenty times quicker than to make a new one
        inner: Any = {"state": seed << 64 | (seed * _GOLDEN & _MASK), "inc": _PCG_INCREMENT}
        bits.state = {"bit_generator": "PCG64", "state": inner, "has_uint32": 0, "uinteger": 0}
        bits.random_raw()  # mixes what lies in the low bits into the high ones
    else:
        bits.state = type(bits)(seed).state


def states_of(held: Sequence[Held]) -> list[Any]:
    """Their states, for `restore`."""
    return [_state_of(value) for value in held]


def _state_of(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    return value.state.numpy() if _is_tensorflows(value) else value.get_state()


def restore(held: Sequence[Held], states: Sequence[Any]) -> None:
    """Set their states back."""
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
