"""Batches as PyTorch tensors, over the same memory where they stay on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stoker.structure.forms import Array

#: Dtypes that PyTorch, or Keras on it, does not compute with, and those that Keras' own arrays are converted to there.
_WIDER = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64}
#: The dtypes for which there is no such conversion.
REFUSED = frozenset({np.dtype(np.uint64)})


def tensor_maker() -> Callable[[Array], Any]:
    """The function that makes a tensor of an array, on the device that Keras uses then. On the CPU it copies nothing.

    The tensor keeps the array, and so the lease on its slot. PyTorch has no read-only tensors and warns of read-only
    arrays, so it gets a writable view: what a model writes into its own batch is seen by no other.
    """
    import torch
    from keras.src.backend.torch.core import get_device

    def tensor(array: Array) -> Any:
        array = array.astype(_WIDER[array.dtype]) if array.dtype in _WIDER else array.view()
        array.flags.writeable = True
        if array.dtype.kind == "V":  # bfloat16, which NumPy knows from ml_dtypes
            made = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            made = torch.from_numpy(array)
        return _placed(made, get_device())

    return tensor


def _placed(made: Any, device: Any) -> Any:
    """The tensor on this device.

    The copy to a GPU comes from pageable memory, which PyTorch copies before it returns, so the lease may end then.
    Slots registered with `cudaHostRegister` could be copied asynchronously: this is the place for it, and for the event
    until which their leases must last.
    """
    return made if device == "cpu" or str(device) == "cpu" else made.to(device)
