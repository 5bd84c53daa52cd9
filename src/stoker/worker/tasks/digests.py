"""Numbers that tell whether an example came out as it did before."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import optree

from stoker.protocol.replies import DIGESTS
from stoker.structure.spec import plain
from stoker.structure.values import STRING, Misfit, Ragged, Sparse, canonical

_SAMPLE = 4096


class Digests:
    """Of the outputs that a task makes, each with the number of its example."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._found)

    def clear(self) -> None:
        """A task begins."""
        self._found.clear()

    def add(self, number: int, output: Any) -> None:
        """One more output, of the example with this number."""
        self._found.append((number, digest(output, whole=True)))

    @property
    def together(self) -> int:
        """How many outputs in a row share a digest, so that there are no more than `DIGESTS`."""
        return max(1, -(-len(self._found) // DIGESTS))

    def told(self) -> tuple[tuple[int, int], ...]:
        """The digests, each behind the number of its example, or of the first of those that share it."""
        size = self.together
        if size == 1:
            return tuple(self._found)
        runs = (self._found[start : start + size] for start in range(0, len(self._found), size))
        return tuple((run[0][0], zlib.crc32(repr(run).encode())) for run in runs)


def digest(example: Any, *, whole: bool = False) -> int:
    """A cheap number that two different examples hardly share; of a large array, samples are looked at, or it all."""
    value = 0
    for leaf in optree.tree_leaves(plain(example)):
        if isinstance(leaf, str | bytes | bool | int | float | complex | np.generic):
            value = zlib.crc32(repr(leaf).encode("utf-8", "surrogatepass"), value)
            continue
        try:
            form = canonical(leaf)
        except Misfit:  # something that the transform understands
            value = zlib.crc32(type(leaf).__name__.encode(), value)
            continue
        arrays = (
            (form.values, *form.splits) if isinstance(form, Ragged) else form if isinstance(form, Sparse) else (form,)
        )
        for array in arrays:
            value = zlib.crc32(str((array.shape, array.dtype)).encode(), value)
            value = zlib.crc32(array.tobytes() if whole and array.dtype != STRING else _sample(array), value)
    return value


def _sample(array: npt.NDArray[Any]) -> bytes:
    """The start, the end and some of what lies between."""
    flat = array.reshape(-1)
    if flat.dtype == STRING:
        return b"\0".join(flat.tolist())
    if len(flat) <= 3 * _SAMPLE:
        return flat.tobytes()
    return b"".join(part.tobytes() for part in (flat[:_SAMPLE], flat[-_SAMPLE:], flat[:: len(flat) // _SAMPLE]))
