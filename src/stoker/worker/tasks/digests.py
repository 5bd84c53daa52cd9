"""Digests, which show whether an example was the same when it was made again."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import optree

from stoker.protocol.replies import DIGESTS
from stoker.structure.forms import STRING, Misfit, Ragged, Sparse
from stoker.structure.nesting import plain
from stoker.structure.values import canonical

_SAMPLE = 4096


class Digests:
    """The digests of a task's outputs, each with the number of its example."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int]] = []

    def clear(self) -> None:
        """Discard all digests, for a new task."""
        self._found.clear()

    def add(self, number: int, output: Any) -> None:
        """Add an output of the example with this number."""
        self._found.append((number, digest(output, whole=True)))

    @property
    def together(self) -> int:
        """The number of consecutive outputs that share a digest, which limits the digests to `DIGESTS`."""
        return max(1, -(-len(self._found) // DIGESTS))

    def compared(self) -> dict[str, Any]:
        """The digest fields of a reply."""
        return {"digests": self.pairs(), "together": self.together} if self._found else {}

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The digests, each after the number of its example, or of the first example that shares it."""
        size = self.together
        if size == 1:
            return tuple(self._found)
        runs = (self._found[start : start + size] for start in range(0, len(self._found), size))
        return tuple((run[0][0], zlib.crc32(repr(run).encode())) for run in runs)


def digest(example: Any, *, whole: bool = False) -> int:
    """A cheap number that two different examples are unlikely to share.

    Of a large array, only samples are used, or with `whole` all of it.
    """
    value = 0
    for leaf in optree.tree_leaves(plain(example)):
        if isinstance(leaf, str | bytes | bool | int | float | complex | np.generic):
            value = zlib.crc32(repr(leaf).encode("utf-8", "surrogatepass"), value)
            continue
        try:
            form = canonical(leaf)
        except Misfit:  # an object that only the transform understands
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
    """The start, the end and samples from in between."""
    flat = array.reshape(-1)
    if flat.dtype == STRING:
        return b"\0".join(flat.tolist())
    if len(flat) <= 3 * _SAMPLE:
        return flat.tobytes()
    return b"".join(part.tobytes() for part in (flat[:_SAMPLE], flat[-_SAMPLE:], flat[:: len(flat) // _SAMPLE]))
