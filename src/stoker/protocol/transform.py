"""How a transform is called: with the example, or with its parts, as `tf.data.Dataset.map` does with tuples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from stoker.errors import OptionError
from stoker.structure.forms import Misfit


class _OfParts:
    """Calls a function with the parts of a tuple as separate arguments."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.function, self.names = function, names

    def __call__(self, example: Any, **rng: Any) -> Any:
        if not isinstance(example, tuple) or len(example) != len(self.names):
            count, names = len(self.names), ", ".join(self.names)
            raise Misfit(
                f"the transform takes {count} arguments ({names}), but the example is {_kind(example)}: only a tuple "
                f"of {count} is unpacked. Take one argument, the whole example."
            )
        return self.function(*example, **rng)


def called(transform: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The callable for each example: the transform, wrapped in `_OfParts` if it needs two arguments or more.

    An argument `rng` does not count. Raises `OptionError` for a function that cannot be called either way.
    """
    if transform is None:
        return None
    try:
        signature = inspect.signature(transform)
    except (ValueError, TypeError):  # a builtin without a signature
        return transform
    rng = {"rng": None} if "rng" in signature.parameters else {}
    needed = tuple(
        name
        for name, parameter in signature.parameters.items()
        if name != "rng"
        and parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )
    count = max(1, len(needed))
    try:
        signature.bind(*[None] * count, **rng)
    except TypeError as error:
        name = getattr(transform, "__name__", type(transform).__name__)
        raise OptionError(
            f"transform {name}{signature} cannot be called with an example: {error}. It must take one argument, the "
            "example (or one for each part of a tuple); bind the others, for example with functools.partial, or give "
            "them defaults."
        ) from None
    return transform if count == 1 else _OfParts(transform, needed)


def _kind(example: Any) -> str:
    if isinstance(example, tuple):
        return f"a tuple of {len(example)}"
    kind = type(example).__name__
    return f"a dict of {', '.join(map(repr, example))}" if isinstance(example, dict) else f"a {kind}"
