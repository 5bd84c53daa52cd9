"""Nested structures as `optree` knows them: other containers converted, and flattened to leaves. Pure."""

from __future__ import annotations

import dataclasses
from collections import UserList
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import optree

from stoker.structure.forms import Misfit, Ragged, Sparse

_Taken = TypeVar("_Taken")

#: The most common leaf types, known not to be containers.
_LEAVES = frozenset([np.ndarray, int, float, bool, str, bytes, np.float32, np.float64, np.int64])


def flattened(
    example: Any, is_leaf: Callable[[Any], bool] | None, *, is_plain: bool = False
) -> tuple[list[Any], optree.PyTreeSpec]:
    """The leaves of an example and its nesting. Raises `Misfit` if it cannot be flattened."""
    example = example if is_plain else made_plain(example)
    return _safely(example, lambda: optree.tree_flatten(example, is_leaf=is_leaf))


def made_plain(example: Any) -> Any:
    """Call `plain`, turning its errors into `Misfit`."""
    return _safely(example, lambda: plain(example))


def _safely(example: Any, take: Callable[[], _Taken]) -> _Taken:
    """Call `take`, turning errors from the example's own code into `Misfit`."""
    try:
        return take()
    except (MemoryError, Misfit):
        raise
    except RecursionError:
        raise Misfit("it is nested too deeply, or contains itself.") from None
    except Exception as error:  # a dataclass field without a value, a container whose methods raise
        what = f"{type(error).__name__}: {error}"
        raise Misfit(f"its {type(example).__name__} cannot be flattened: {what}") from error


def plain(example: Any) -> Any:
    """Convert dataclasses and mappings in the structure to dicts, and subclasses of list and tuple to these."""
    return example if type(example) in _LEAVES else optree.tree_map(_plain_part, example, none_is_leaf=True)


def _plain_part(part: Any) -> Any:
    """Convert a part that `optree` treats as a leaf to containers that it knows."""
    if type(part) in _LEAVES:
        return part
    if isinstance(part, Mapping):
        return {key: plain(part[key]) for key in part}
    if _is_dataclass(part):
        return {field.name: plain(_value_of(part, field.name)) for field in dataclasses.fields(part)}
    if isinstance(part, tuple):
        return tuple(map(plain, part))
    if isinstance(part, list | UserList | range):
        return list(map(plain, part))
    return part


def _value_of(record: Any, field: str) -> Any:
    try:
        return getattr(record, field)
    except AttributeError:
        raise Misfit(f"its {type(record).__name__} has no value for the field {field!r}.") from None


def _is_dataclass(value: Any) -> bool:
    return (
        dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Ragged | Sparse)
    ) and not hasattr(value, "__array__")
