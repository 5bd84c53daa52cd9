"""PyTorch tensors and JAX sparse arrays as NumPy arrays. Pure; imports neither.

They are recognised by their attributes. The result is an array, a list of rows (of a nested tensor), or `Coordinates`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Coordinates(NamedTuple):
    """A sparse array with `values[n]` at `indices[n]`, in no particular order. Each index occurs once."""

    indices: npt.NDArray[np.int64]
    values: Array
    shape: tuple[int, ...]


def is_torch(value: Any) -> bool:
    """True for a PyTorch tensor or `Parameter`."""
    return hasattr(value, "detach") and hasattr(value, "layout") and hasattr(value, "is_nested")


def plain_torch(value: Any) -> Any:
    """The array over the memory of a PyTorch tensor that needs no conversion, as most; any other value as it is."""
    kind = type(value)
    if kind.__name__ != "Tensor" or kind.__module__ != "torch":
        return value
    try:
        return value.numpy()
    except Exception:  # it has a gradient or a conjugate bit, is sparse, lies on a GPU, or is of another dtype
        return value


def of_torch(value: Any) -> Array | list[Any] | Coordinates:
    """The values of a tensor, without its gradient and with its negative or conjugate bit resolved."""
    array: Array
    if type(array := plain_torch(value)) is np.ndarray:
        return array
    tensor = value.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    layout = str(tensor.layout).removeprefix("torch.")
    if layout != "strided":
        return _of_sparse_torch(tensor if layout == "sparse_coo" else tensor.to_sparse())
    tensor = tensor.resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        return _brief(tensor.float().numpy())
    array = tensor.numpy()
    return array


def _of_sparse_torch(tensor: Any) -> Coordinates:
    if tensor.dense_dim():  # its values are rows
        tensor = tensor.to_dense().to_sparse()
    tensor = tensor.coalesce()
    values = of_torch(tensor.values())
    assert isinstance(values, np.ndarray)
    return Coordinates(tensor.indices().numpy().T, values, tuple(tensor.shape))


def _brief(floats: Array) -> Array:
    """Convert float32 values back to bfloat16, without loss. They stay float32 if `ml_dtypes` is not installed."""
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return floats
    return floats.astype(bfloat16)


def is_jax_sparse(value: Any) -> bool:
    """True for a JAX `BCOO` or `BCSR` array."""
    return hasattr(value, "n_dense") and hasattr(value, "n_batch") and hasattr(value, "todense")


def of_jax_sparse(value: Any) -> Coordinates:
    """The values and indices of a JAX sparse array."""
    if value.n_batch or value.n_dense:
        dense = np.asarray(value.todense())
        places = np.argwhere(dense)
        return Coordinates(places, dense[tuple(places.T)], dense.shape)
    coo = value.to_bcoo() if hasattr(value, "to_bcoo") else value
    shape = tuple(coo.shape)
    indices, values = np.asarray(coo.indices, np.int64), np.asarray(coo.data)
    stands = (indices < np.array(shape, np.int64)).all(axis=1)  # indices outside the shape are padding
    return _summed(indices[stands], values[stands], shape)


def _summed(indices: Array, values: Array, shape: tuple[int, ...]) -> Coordinates:
    """Coordinates in which values at the same index are added up."""
    places, which = np.unique(indices, axis=0, return_inverse=True)
    if len(places) == len(indices):
        return Coordinates(indices, values, shape)
    sums = np.zeros(len(places), values.dtype)
    np.add.at(sums, which.reshape(-1), values)
    return Coordinates(places, sums, shape)
