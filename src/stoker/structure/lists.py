"""Which lists are arrays, and which are containers of several. Pure.

A list of numbers of one kind, or of strings, is an array, and so are lists of such lists, all equally long: as for
`tf.convert_to_tensor`. A list with anything else in it is a container. Tuples are always containers.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

#: Lists within lists are followed so deep. (One that contains itself has no end.)
_DEEPEST = 16


def kinds_of(items: list[Any]) -> tuple[set[type], bool]:
    """The types of what stands in nested lists, and whether all lists of a level are equally long.

    `list` is among the types where lists stand beside other things.
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
    """Whether this is a type of numbers (or of bools) that stand in arrays."""
    if issubclass(kind, np.generic):
        return not issubclass(kind, np.flexible | np.datetime64 | np.timedelta64 | np.object_)
    return issubclass(kind, bool | int | float | complex)


def are_numbers(kinds: Collection[type]) -> bool:
    """Whether all are types of numbers, or of bools."""
    return all(map(is_number, kinds))


def are_strings(kinds: Collection[type]) -> bool:
    """Whether all are types of strings."""
    return all(issubclass(kind, str | bytes) for kind in kinds)


def is_array(part: Any) -> bool:
    """Whether `part` is a list that counts as an array wherever it stands."""
    if type(part) is not list:
        return False
    kinds, is_even = kinds_of(part)
    return is_even and _are_alike(kinds)


def is_row(part: Any) -> bool:
    """The same where sizes may differ: lists within it need not be equally long."""
    return type(part) is list and _are_alike(kinds_of(part)[0])


def is_of_tokens(part: Any) -> bool:
    """Whether `part` is a list of numbers and strings, or of such lists."""
    if type(part) is not list:
        return False
    return all(issubclass(kind, bool | int | float | complex | str | bytes | np.generic) for kind in kinds_of(part)[0])


def _are_alike(kinds: Collection[type]) -> bool:
    bools = [issubclass(kind, bool | np.bool_) for kind in kinds]
    return are_strings(kinds) or (are_numbers(kinds) and all(bools) in (True, any(bools)))
