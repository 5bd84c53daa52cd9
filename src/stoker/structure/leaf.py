"""The shape and dtype of one leaf, of an example or of a batch. Pure. For the values that it may have, see `values`."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any

import numpy as np

from stoker.structure.casting import is_castable
from stoker.structure.forms import STRING, Misfit, Ragged, Sparse
from stoker.structure.values import canonical

#: Names of the dtypes shared by NumPy (with ml_dtypes) and TensorFlow whose elements lie directly in memory.
DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
    "complex64 complex128 bfloat16".split()
)

Shape = tuple[int | None, ...]

_INDEX, _BYTES = np.dtype(np.int64), np.dtype(np.uint8)


class Kind(enum.Enum):
    """The memory layout of a leaf's values in a batch."""

    DENSE = "an array"
    RAGGED = "values, and row splits for each ragged dimension"
    SPARSE = "values, indices, dense shape"
    VARYING = "examples of differing shapes, handed out one by one: flat values, row splits, shapes"


@dataclass(frozen=True)
class PartSpec:
    """One array of a leaf, as stored in a slot."""

    dtype: np.dtype[Any]
    ndim: int


@dataclass(frozen=True)
class Leaf:
    """One leaf of an example, or of a batch, whose first dimension is the rows.

    Attributes:
        path: position in the structure: `['image']`, `[0].label`, or "" for the root.
        shape: sizes; None for a dimension that varies.
        dtype: native dtype; `STRING` (object) for strings.
        kind: memory layout.
        ragged_rank: number of ragged dimensions of a `RAGGED` leaf.
        lenient: Python numbers take on its dtype, and lists of numbers or strings count as arrays.
        undetermined: for an empty value, how much is unknown: 1 for an array of size 0, whose dtype and sizes yield to
            those of other examples; 2 for an empty list, which has no dtype; 0 for any other value.
        first: the shape in the first examples, if later ones may differ.
        is_alone: handed out unchanged, as a single example or a whole batch.
        origin: how the leaf is known, for messages.
        signed: declared by `output_signature`: numbers of other dtypes are converted to its own.
    """

    path: str
    shape: Shape
    dtype: np.dtype[Any]
    kind: Kind = Kind.DENSE
    ragged_rank: int = 0
    lenient: bool = False
    undetermined: int = 0
    first: Shape = ()
    is_alone: bool = False
    origin: str = dataclasses.field(default="as in the first examples", compare=False)
    signed: bool = False

    def __str__(self) -> str:
        kind = "" if self.kind in (Kind.DENSE, Kind.VARYING) else f"{self.kind.name.lower()} "
        return f"{kind}{self.dtype_name} of shape {shape_text(self.shape)}"

    @property
    def dtype_name(self) -> str:
        """TensorFlow's name of the dtype."""
        return "string" if self.dtype == STRING else self.dtype.name

    @property
    def expected(self) -> str:
        """The expected leaf and its origin, for messages."""
        return f"expected {self} {self.origin}"

    @property
    def is_fixed(self) -> bool:
        """True if this leaf takes the same number of bytes in every example."""
        return self.kind is Kind.DENSE and self.dtype != STRING and None not in self.shape

    def merged(self, other: Leaf) -> Leaf:
        """The leaf that covers both this and `other`. Dimensions that differ become None. Raises `Misfit`."""
        kinds = {self.kind, other.kind}
        known, empty = (self, other) if self._tells() >= other._tells() else (other, self)
        if empty.undetermined and Kind.SPARSE not in kinds and (shape := _beside_nothing(known, empty)) is not None:
            kind = Kind.RAGGED if Kind.RAGGED in kinds else known.kind
            rank = max(self.ragged_rank, other.ragged_rank)
            return Leaf(self.path, shape, known.dtype, kind, rank, undetermined=known.undetermined, origin=self.origin)
        if (
            len(self.shape) != len(other.shape)
            or (Kind.SPARSE in kinds and len(kinds) > 1)
            or self.dtype != other.dtype
        ):
            raise Misfit(f"{_at(self.path)}it holds {other}, {self.expected}. {dtype_repair(self, other)}")
        shape = tuple(one if one == two else None for one, two in zip(self.shape, other.shape, strict=True))
        kind = Kind.RAGGED if Kind.RAGGED in kinds else self.kind
        rank = max(self.ragged_rank, other.ragged_rank)
        return Leaf(self.path, shape, self.dtype, kind, rank, origin=self.origin)

    def _tells(self) -> tuple[int, int]:
        return -self.undetermined, len(self.shape)

    def parts(self) -> tuple[PartSpec, ...]:
        """The arrays that store this leaf of a batch.

        The values come first. Strings are joined to one; the position at which each ends in it follows.
        """
        splits = PartSpec(_INDEX, 1)
        match self.kind:
            case Kind.DENSE:
                return self._value_parts(len(self.shape))
            case Kind.RAGGED:
                return (*self._value_parts(len(self.shape) - self.ragged_rank), *[splits] * self.ragged_rank)
            case Kind.SPARSE:
                return (*self._value_parts(1), PartSpec(_INDEX, 2), PartSpec(_INDEX, 1))
            case Kind.VARYING:
                return (*self._value_parts(1), splits, PartSpec(_INDEX, 2))

    def _value_parts(self, ndim: int) -> tuple[PartSpec, ...]:
        if self.dtype == STRING:
            return PartSpec(_BYTES, 1), PartSpec(_INDEX, ndim)
        return (PartSpec(self.dtype, ndim),)


def describe(path: str, value: Any) -> Leaf:
    """The `Leaf` that describes `value`. Raises `Misfit` if it cannot be a leaf."""
    try:
        form = canonical(value)
    except Misfit as misfit:
        raise Misfit(f"{_at(path)}it {misfit}") from None
    leaf, undetermined = leaf_of(path, form), undetermined_by(value, form)
    return dataclasses.replace(leaf, undetermined=undetermined) if undetermined else leaf


def described_as(leaf: Leaf, value: Any) -> Leaf:
    """The `Leaf` that describes `value`. A list of integers counts as floats if the leaf holds floats."""
    its = describe(leaf.path, value)
    if type(value) is list and its.dtype.kind == "i" and leaf.dtype.kind in "fc" and not leaf.undetermined:
        return dataclasses.replace(its, dtype=leaf.dtype)
    return its


def undetermined_by(value: Any, form: Any) -> int:
    """The `undetermined` of a value; see `Leaf`."""
    if isinstance(form, Sparse):
        return 0
    if (form.values if isinstance(form, Ragged) else form).size:
        return 0
    return 2 if type(value) is list or (type(value) is np.ndarray and value.dtype == STRING) else 1


def empty_as(leaf: Leaf, form: Any) -> Any:
    """The empty value `form`, given the dtype and sizes of `leaf` as far as these fit."""
    if isinstance(form, Ragged):
        values = _sized(form.values, leaf, len(form.splits))
        return form if values is None else Ragged(values, form.splits)
    sized = _sized(form, leaf, 0)
    return form if sized is None else sized


def _sized(array: Any, leaf: Leaf, level: int) -> Any:
    """An empty array with the dtype and sizes of `leaf` from dimension `level` on; None if `array` does not fit."""
    sizes = (leaf.first or leaf.shape)[level:]
    first = array.shape.index(0)
    if first >= len(sizes) or array.ndim > len(sizes):
        return None
    beyond = [*array.shape[first + 1 :], *[0] * (len(sizes) - array.ndim)]
    shape = [
        *array.shape[: first + 1],
        *(its or size or 0 for its, size in zip(beyond, sizes[first + 1 :], strict=True)),
    ]
    return np.zeros(shape, leaf.dtype)


def _beside_nothing(known: Leaf, empty: Leaf) -> Shape | None:
    """The shape that covers the leaf `known` and the leaf `empty`, which has no values; None if there is none."""
    zero = empty.ragged_rank if 0 not in empty.shape else empty.shape.index(0)
    if zero >= len(known.shape) or len(empty.shape) > len(known.shape):
        return None
    sizes: list[int | None] = []
    for place, size in enumerate(known.shape):
        its = empty.shape[place] if place < len(empty.shape) else 0
        is_free = its in (0, size) if place > zero else its == size
        sizes.append(size if is_free else None)
    return tuple(sizes)


def leaf_of(path: str, form: Any) -> Leaf:
    """The `Leaf` that describes a value in canonical form. Raises `Misfit` for a dtype that no batch can hold."""
    if isinstance(form, Ragged):
        dtype, rank = _dtype(path, form.values), len(form.splits)
        shape = (len(form.splits[0]) - 1, *[None] * rank, *form.values.shape[1:])
        return Leaf(path, shape, dtype, Kind.RAGGED, rank)
    if isinstance(form, Sparse):
        return Leaf(path, tuple(form.dense_shape.tolist()), _dtype(path, form.values), Kind.SPARSE)
    return Leaf(path, form.shape, _dtype(path, form))


def _dtype(path: str, array: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = array.dtype
    native: np.dtype[Any] = dtype.newbyteorder("=")
    if dtype != STRING and dtype.name not in DTYPES:
        raise Misfit(
            f"{_at(path)}it holds {dtype.name!r} of shape {array.shape}, a dtype that TensorFlow "
            f"or a batch does not support. Convert it, for example with .astype('float32')."
        )
    return native


def dtype_repair(expected: Leaf, came: Leaf) -> str:
    """Advice on a leaf whose dtype is not the expected one."""
    if expected.signed or came.dtype == expected.dtype or not is_castable(came.dtype, expected.dtype):
        return "Convert it in your code."
    return "Convert it in your code, or declare the dtype in `output_signature`: all examples are converted to it."


def fixed_shape(leaf: Leaf) -> tuple[int, ...]:
    """The shape of a leaf without varying dimensions."""
    assert None not in leaf.shape, leaf
    return tuple(size or 0 for size in leaf.shape)


def _at(path: str) -> str:
    return f"at {path} " if path else ""


def shape_text(shape: Shape) -> str:
    """A shape in Python notation."""
    return str(tuple(shape))
