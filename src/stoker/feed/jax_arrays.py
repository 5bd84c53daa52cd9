"""Batches for JAX: NumPy arrays, which its compiled functions read in place on the CPU, and sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from stoker.structure.forms import Array


def sparse_array(values: Array, indices: Array, shape: Array) -> Any:
    """A sparse value as `BCOO`.

    The number of its elements is filled up to a power of two, since JAX compiles a function anew for each number. The
    fillers lie outside of the array, where JAX ignores them.
    """
    from jax.experimental.sparse import BCOO

    size = 1 << max(0, len(values) - 1).bit_length()
    filled = np.zeros(size, values.dtype)
    filled[: len(values)] = values
    places = np.broadcast_to(shape.astype(np.int32), (size, len(shape))).copy()
    places[: len(values)] = indices
    parts: Any = filled, places  # NumPy arrays, which JAX's own types do not name
    return BCOO(parts, shape=tuple(shape.tolist()), indices_sorted=True)
