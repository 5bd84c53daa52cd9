"""Tensors of the dtypes that PyTorch pickles but cannot unpickle: uint16, uint32, uint64 and float8."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

#: For the bytes of an element, the signed integer dtype as which such a tensor is pickled.
_STORED = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


def dispatch_table(base: Mapping[type, Callable[[Any], Any]]) -> Mapping[type, Callable[[Any], Any]]:
    """A pickler's dispatch table `base`, with PyTorch's tensors if PyTorch has been imported."""
    torch: Any = sys.modules.get("torch")
    return base if not hasattr(torch, "Tensor") else {**base, torch.Tensor: _reduced}


def viewed(stored: Any, dtype: Any) -> Any:
    """The tensor that was pickled as integers."""
    return stored.view(dtype)


def _reduced(tensor: Any) -> Any:
    name = str(tensor.dtype)
    if not name.startswith(("torch.uint", "torch.float8")) or name == "torch.uint8" or tensor.device.type != "cpu":
        return tensor.__reduce_ex__(5)
    stored = getattr(sys.modules["torch"], _STORED[tensor.element_size()])
    return viewed, (tensor.detach().view(stored), tensor.dtype)
