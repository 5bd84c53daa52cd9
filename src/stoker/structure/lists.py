"""Which lists are arrays, and which are containers. Pure.

A list of numbers of one kind, or of strings, is an array. So is a list of such lists of equal length, as for
`tf.convert_to_tensor`. A list with anything else in it is a container. Tuples are always containers.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

#: How deep nested lists are followed, because a list may contain itself.
_DEEPEST = 16


def kinds_of(items: list[Any]) -> tuple[set[type], bool]:
    """The types of the items in nested lists, and whether all lists of a level have the same length.

    The types include `list` if lists are mixed with other items.
    """
    is_even, kinds = True, set(map(type, items))
    for _ in range(_DEEPEST):
        if kinds != {list}:
            break
        is_even = is_even and len(set(map(len, items))) == 1
        items = list(itertools.chain.from_iterable(items))
        kinds = set(map(type, items))
    return kinds, is_even


def is_number(kind: type) -> bool:
    """True for types of numbers or bools that arrays can hold."""
    if issubclass(kind, np.generic):
        return not issubclass(kind, np.flexible | np.datetime64 | np.timedelta64 | np.object_)
    return issubclass(kind, bool | int | float | complex)


def are_numbers(kinds: Collection[type]) -> bool:
    """True if all are types of numbers or bools."""
    return all(map(is_number, kinds))


def are_strings(kinds: Collection[type]) -> bool:
    """True if all are string types."""
    return all(issubclass(kind, str | bytes) for kind in kinds)


def is_array(part: Any) -> bool:
    """True if `part` is a list that counts as an array under every collation rule."""
    if type(part) is not list:
        return False
    kinds, is_even = kinds_of(part)
    return is_even and _are_alike(kinds)


def is_row(part: Any) -> bool:
    """True if `part` is a list that counts as an array where sizes may differ: inner lists may have any length."""
    return type(part) is list and _are_alike(kinds_of(part)[0])


def is_of_tokens(part: Any) -> bool:
    """True if `part` is a list of numbers and strings, or of such lists."""
    if type(part) is not list:
        return False
    return all(issubclass(kind, bool | int | float | complex | str | bytes | np.generic) for kind in kinds_of(part)[0])


def _are_alike(kinds: Collection[type]) -> bool:
    bools = [issubclass(kind, bool | np.bool_) for kind in kinds]
    return are_strings(kinds) or (are_numbers(kinds) and all(bools) in (True, any(bools)))
