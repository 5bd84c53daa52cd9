"""Nested structures and their flat leaves: the shapes and dtypes of an example or a batch.

Pure: no I/O, no process, no TensorFlow. A structure is any nesting of dict, list, tuple and namedtuple. Other mappings
and dataclasses become dicts. `optree` flattens it. For the values allowed at a leaf, see `values`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import UserList
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import optree

from stoker.structure.casting import is_castable
from stoker.structure.lists import is_array
from stoker.structure.values import STRING, Ragged, Sparse, canonical, short
from stoker.structure.values import Misfit as Misfit

#: Names of the dtypes shared by NumPy (with ml_dtypes) and TensorFlow whose elements lie directly in memory.
DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
    "complex64 complex128 bfloat16".split()
)

Shape = tuple[int | None, ...]
_Taken = TypeVar("_Taken")

#: The most common leaf types, known not to be containers.
_LEAVES = frozenset([np.ndarray, int, float, bool, str, bytes, np.float32, np.float64, np.int64])
#: Containers that need no conversion.
_KNOWN = frozenset([dict, tuple, list])

_INDEX, _BYTES = np.dtype(np.int64), np.dtype(np.uint8)


class Kind(enum.Enum):
    """The memory layout of a leaf's values in a batch."""

    DENSE = "an array"
    RAGGED = "values, and row splits for each ragged dimension"
    SPARSE = "values, indices, dense shape"
    VARYING = "examples of differing shapes to be handed out singly: flat values, row splits, shapes"


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
        untold: for an empty value, how much is unknown: 1 for an array of size 0, whose dtype and sizes yield to those
            of other examples; 2 for an empty list, which has no dtype; 0 for any other value.
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
    untold: int = 0
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
        told, empty = (self, other) if self._tells() >= other._tells() else (other, self)
        if empty.untold and Kind.SPARSE not in kinds and (shape := _beside_nothing(told, empty)) is not None:
            kind = Kind.RAGGED if Kind.RAGGED in kinds else told.kind
            rank = max(self.ragged_rank, other.ragged_rank)
            return Leaf(self.path, shape, told.dtype, kind, rank, untold=told.untold, origin=self.origin)
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
        return -self.untold, len(self.shape)

    def parts(self) -> tuple[PartSpec, ...]:
        """The arrays that store this leaf of a batch.

        The values come first. For strings they are a `TensorProto`, and the start and end of each string in it.
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
            return PartSpec(_BYTES, 1), PartSpec(_INDEX, ndim + 1)
        return (PartSpec(self.dtype, ndim),)


@dataclass(frozen=True)
class Spec:
    """The spec of one example or one batch: its nesting, and a `Leaf` for each value.

    >>> spec = Spec.of({"image": np.zeros((2, 3), np.uint8), "label": 4})
    >>> [str(leaf) for leaf in spec.leaves]
    ['uint8 of shape (2, 3)', 'int64 of shape ()']
    >>> spec.leaves[0].path
    "['image']"
    """

    tree: optree.PyTreeSpec
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, example: Any, is_leaf: Callable[[Any], bool] | None = None) -> Spec:
        """Describe `example`. Raises `Misfit` for a leaf that no tensor can hold.

        Args:
            example: the structure.
            is_leaf: decides whether a list is a single leaf; by default, lists that are arrays are. If given, the
                example must not contain dataclasses.
        """
        values, tree = flattened(example, is_leaf or is_array, is_plain=is_leaf is not None)
        if example is None:
            describe("", None)
        if not values:
            raise Misfit(f"it has no array, number or string in it: {short(example)}. Return at least one.")
        paths = (accessor.codify("") for accessor in tree.accessors())
        return cls(tree, tuple(describe(path, value) for path, value in zip(paths, values, strict=True)))

    def merged(self, other: Spec) -> Spec:
        """The spec that fits both. Raises `Misfit` if the structures differ."""
        if self.tree != other.tree:
            raise Misfit(self._structure_misfit(other.tree))
        leaves = (mine.merged(its) for mine, its in zip(self.leaves, other.leaves, strict=True))
        return Spec(self.tree, tuple(leaves))

    def widened(self, example: Any) -> Spec:
        """The spec that also fits `example`. Raises `Misfit` if its structure differs."""
        values = self.flatten(example)
        leaves = tuple(leaf.merged(_described_as(leaf, value)) for leaf, value in zip(self.leaves, values, strict=True))
        return Spec(self.tree, leaves)

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """Restore the nesting of the example around `leaves`."""
        return self.tree.unflatten(leaves)

    def is_flat_tuple(self) -> bool:
        """True if an example is a plain tuple of leaves."""
        return (
            self.tree.type is tuple
            and self.tree.num_children == len(self.leaves)
            and all(len(path) == 1 for path in self.tree.paths())
        )

    def flat_keys(self) -> list[Any] | None:
        """The keys in the order of the leaves if an example is a plain dict of leaves, else None."""
        is_flat = self.tree.type is dict and all(len(path) == 1 for path in self.tree.paths())
        return self.tree.entries() if is_flat and self.tree.num_children == len(self.leaves) else None

    def flatten(self, example: Any) -> list[Any]:
        """The values at the leaves. Raises `Misfit` if the structure differs."""
        if example is None:
            raise Misfit(
                f"it is None (did a `return` go missing?). Expected {_tree_text(self.tree)} {self.leaves[0].origin}."
            )
        if type(example) not in _KNOWN and type(example) is not self.tree.type:
            example = made_plain(example)
        try:
            return self.tree.flatten_up_to(example)
        except Exception:  # another structure, other container types, or one that raises when read
            example = made_plain(example)
            try:
                return self.tree.flatten_up_to(example)
            except Exception:  # optree's own error, or one from a `repr` in its text
                # If a list was a container before, show lists as containers even if they could be arrays.
                _, came = flattened(example, None if _has_list(self.tree) else is_array, is_plain=True)
                raise Misfit(self._structure_misfit(came)) from None

    def _structure_misfit(self, came: optree.PyTreeSpec) -> str:
        """The message about the parts in which the structure `came` differs."""
        ours, theirs = set(self.tree.paths()), set(came.paths())
        parts = []
        if missing := [
            leaf.path or "a single leaf"
            for leaf, path in zip(self.leaves, self.tree.paths(), strict=True)
            if path not in theirs
        ]:
            parts.append(f"{', '.join(missing)} missing")
        if added := [
            accessor.codify("") or "a single leaf"
            for accessor, path in zip(came.accessors(), came.paths(), strict=True)
            if path not in ours
        ]:
            parts.append(f"{', '.join(added)} unexpected")
        what = "; ".join(parts) or "the containers differ"
        lists = " A list that holds more than numbers of one kind, or strings, is a container: pass np.array(…) for an "
        repair = lists + "array." if _has_list(self.tree) or _has_list(came) else ""
        return (
            f"its structure changed: {what}. Came {_tree_text(came)}, expected {_tree_text(self.tree)} "
            f"{self.leaves[0].origin}.{repair}"
        )


def flattened(
    example: Any, is_leaf: Callable[[Any], bool] | None, *, is_plain: bool = False
) -> tuple[list[Any], optree.PyTreeSpec]:
    """The leaves of an example and its nesting. Raises `Misfit` if it cannot be flattened."""
    example = example if is_plain else made_plain(example)
    return _safely(example, lambda: optree.tree_flatten(example, is_leaf=is_leaf))


def made_plain(example: Any) -> Any:
    """Call `plain`, turning its errors into `Misfit`."""
    return _safely(example, lambda: plain(example))


def _safely(example: Any, take: Callable[[], _Taken]) -> _Taken:
    """Call `take`, turning errors from the example's own code into `Misfit`."""
    try:
        return take()
    except (MemoryError, Misfit):
        raise
    except RecursionError:
        raise Misfit("it is nested too deeply, or contains itself.") from None
    except Exception as error:  # a dataclass field without a value, a container whose methods raise
        what = f"{type(error).__name__}: {error}"
        raise Misfit(f"its {type(example).__name__} cannot be taken apart: {what}") from error


def plain(example: Any) -> Any:
    """Convert dataclasses and mappings in the structure to dicts, and subclasses of list and tuple to these."""
    return example if type(example) in _LEAVES else optree.tree_map(_plain_part, example, none_is_leaf=True)


def _plain_part(part: Any) -> Any:
    """Convert a part that `optree` treats as a leaf to containers that it knows."""
    if type(part) in _LEAVES:
        return part
    if isinstance(part, Mapping):
        return {key: plain(part[key]) for key in part}
    if _is_dataclass(part):
        return {field.name: plain(_value_of(part, field.name)) for field in dataclasses.fields(part)}
    if isinstance(part, tuple):
        return tuple(map(plain, part))
    if isinstance(part, list | UserList | range):
        return list(map(plain, part))
    return part


def _value_of(record: Any, field: str) -> Any:
    try:
        return getattr(record, field)
    except AttributeError:
        raise Misfit(f"its {type(record).__name__} has no value for the field {field!r}.") from None


def describe(path: str, value: Any) -> Leaf:
    """The `Leaf` that describes `value`. Raises `Misfit` if it cannot be a leaf."""
    try:
        form = canonical(value)
    except Misfit as misfit:
        raise Misfit(f"{_at(path)}it {misfit}") from None
    leaf, untold = leaf_of(path, form), untold_by(value, form)
    return dataclasses.replace(leaf, untold=untold) if untold else leaf


def _described_as(leaf: Leaf, value: Any) -> Leaf:
    """The `Leaf` that describes `value`. A list of integers counts as floats if the leaf holds floats."""
    its = describe(leaf.path, value)
    if type(value) is list and its.dtype.kind == "i" and leaf.dtype.kind in "fc" and not leaf.untold:
        return dataclasses.replace(its, dtype=leaf.dtype)
    return its


def untold_by(value: Any, form: Any) -> int:
    """The `untold` of a value; see `Leaf`."""
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


def _beside_nothing(told: Leaf, empty: Leaf) -> Shape | None:
    """The shape that covers the leaf `told` and the leaf `empty`, which has no values; None if there is none."""
    zero = empty.ragged_rank if 0 not in empty.shape else empty.shape.index(0)
    if zero >= len(told.shape) or len(empty.shape) > len(told.shape):
        return None
    sizes: list[int | None] = []
    for place, size in enumerate(told.shape):
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
            f"{_at(path)}it holds {dtype.name!r} of shape {array.shape}, a dtype that TensorFlow lacks "
            f"or that cannot lie in a batch. Convert it, for example with .astype('float32')."
        )
    return native


def dtype_repair(expected: Leaf, came: Leaf) -> str:
    """Advice on a leaf whose dtype is not the expected one."""
    if expected.signed or came.dtype == expected.dtype or not is_castable(came.dtype, expected.dtype):
        return "Convert it in your code."
    return "Convert it in your code, or tell the dtype by `output_signature`: all examples are converted to it."


def fixed_shape(leaf: Leaf) -> tuple[int, ...]:
    """The shape of a leaf without varying dimensions."""
    assert None not in leaf.shape, leaf
    return tuple(size or 0 for size in leaf.shape)


def _is_dataclass(value: Any) -> bool:
    return (
        dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Ragged | Sparse)
    ) and not hasattr(value, "__array__")


def _at(path: str) -> str:
    return f"at {path} " if path else ""


def shape_text(shape: Shape) -> str:
    """A shape in Python notation."""
    return str(tuple(shape))


def _has_list(tree: optree.PyTreeSpec) -> bool:
    """True if the tree contains a list as a container."""
    return tree.type is list or any(map(_has_list, tree.children()))


def _tree_text(tree: optree.PyTreeSpec) -> str:
    text = str(tree).removeprefix("PyTreeSpec(").removesuffix(")")
    return "a single leaf" if text == "*" else text
