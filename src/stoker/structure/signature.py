"""The form of batches, as declared by `output_signature`. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree

from stoker.errors import OptionError
from stoker.structure.collation import Collation, Form
from stoker.structure.forms import STRING
from stoker.structure.leaf import DTYPES, Kind, Leaf
from stoker.structure.nesting import plain
from stoker.structure.spec import Spec

_SIGNED = "as declared by output_signature"


def signed_form(signature: Any, collation: Collation) -> Form:
    """The form that `output_signature` declares. Raises `OptionError`."""
    specs, tree = optree.tree_flatten(plain(signature))
    if not specs:
        raise OptionError(f"output_signature must be nested tf.TensorSpecs, got {signature!r}")
    paths = (accessor.codify("") for accessor in tree.accessors())
    spec = Spec(tree, tuple(_signed_leaf(path, declared) for path, declared in zip(paths, specs, strict=True)))
    return Form.of(spec, collation.rules(spec))


def _signed_leaf(path: str, declared: Any) -> Leaf:
    """The leaf for a `tf.TensorSpec`, or for a ragged or sparse spec."""
    where = f"output_signature{path}"
    try:
        dtype, dims = np.dtype(declared.dtype.as_numpy_dtype), declared.shape.as_list()
    except (AttributeError, TypeError):
        raise OptionError(f"{where} must be a tf.TensorSpec (ragged, sparse), got {declared!r}") from None
    except ValueError:
        raise OptionError(
            f"{where} must have a known number of dimensions (None for sizes that vary), got {declared!r}"
        ) from None
    dtype = STRING if declared.dtype.name == "string" else dtype
    if dtype != STRING and dtype.name not in DTYPES:
        raise OptionError(f"{where} declares the dtype {declared.dtype.name}, which no batch can hold.")
    if hasattr(declared, "ragged_rank"):
        kind = Kind.RAGGED if declared.ragged_rank else Kind.DENSE
        return Leaf(path, tuple(dims), dtype, kind, declared.ragged_rank, lenient=True, signed=True, origin=_SIGNED)
    kind = Kind.SPARSE if type(declared).__name__ == "SparseTensorSpec" else Kind.DENSE
    return Leaf(path, tuple(dims), dtype, kind, lenient=True, signed=True, origin=_SIGNED)
