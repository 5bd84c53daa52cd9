"""How examples are joined into a batch: stack, pad or ragged, chosen for each leaf by its path. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import optree

from stoker.errors import OptionError
from stoker.structure.forms import STRING
from stoker.structure.leaf import Kind, Leaf, PartSpec
from stoker.structure.lists import is_array, is_of_tokens, is_row
from stoker.structure.nesting import flattened, made_plain
from stoker.structure.spec import Spec
from stoker.validation import flag, index, whole


@dataclass(frozen=True)
class Pad:
    """The rule that `pad` returns; see there for its options."""

    values: Any = None
    to: tuple[int | None, ...] | None = None
    multiple_of: int | None = None
    truncate: bool = False

    def size(self, place: int) -> int | None:
        """The size to which the dimension `place` is padded, or None."""
        return self.to[place] if self.to is not None and place < len(self.to) else None


def pad(
    values: Any = None,
    to: int | Sequence[int | None] | None = None,
    multiple_of: int | None = None,
    *,
    truncate: bool = False,
) -> Pad:
    """Collate by padding each leaf to one size, as `tf.data.Dataset.padded_batch` does.

    Args:
        values: the value appended to shorter examples; None for 0, False or an empty string, depending on the dtype.
        to: the size of each dimension, or an int for the first one; None for the longest example of the batch. A
            longer example is an error.
        multiple_of: round sizes that `to` leaves open up to a multiple of this.
        truncate: cut examples longer than `to` at their end.

    Example:
        >>> import stoker
        >>> with stoker.Loader([[1], [2, 3]], batch_size=2, collate=stoker.pad(values=-1, to=4), workers=0) as loader:
        ...     next(iter(loader)).tolist()
        [[1, -1, -1, -1], [2, 3, -1, -1]]
        >>> cut = stoker.pad(to=2, truncate=True)
        >>> with stoker.Loader([[1], [2, 3, 4]], batch_size=2, collate=cut, workers=0) as loader:
        ...     next(iter(loader)).tolist()
        [[1, 0], [2, 3]]
    """
    sizes = None if to is None else _sizes(to)
    if multiple_of is not None:
        multiple_of = whole("pad(multiple_of=…)", multiple_of, least=1)
    truncate = flag("pad(truncate=…)", truncate)
    if truncate and not any(size is not None for size in sizes or ()):
        raise OptionError(f"pad(truncate=True) cuts examples to the sizes in `to`, which gives none: to={to!r}")
    return Pad(values, sizes, multiple_of, truncate)


def _sizes(to: Any) -> tuple[int | None, ...]:
    """Parse `pad(to=…)`. Raises `OptionError`."""
    given = tuple(to) if isinstance(to, Sequence | np.ndarray) and np.ndim(to) else (to,)
    sizes = tuple(map(index, given))
    if any(came is not None and (size is None or size < 0) for came, size in zip(given, sizes, strict=True)):
        raise OptionError(f"pad(to=…) must be sizes (ints of at least 0, or None), got {to!r}")
    return sizes


#: How one leaf is joined. "asis": it is already a batch; "single": examples are handed out one by one.
Rule = Pad | Literal["stack", "ragged", "asis", "single"]

#: If a path does not exist: how many paths the message lists, and how many are searched for a similar one.
_SHOWN, _SEARCHED = 20, 1000

_NAMES: dict[str, Rule] = {"stack": "stack", "ragged": "ragged", "pad": Pad()}


@dataclass(frozen=True)
class Collation:
    """The parsed option `Loader(collate=…)`.

    Attributes:
        default: the rule for leaves that `paths` does not name.
        paths: rules by path; a path is a tuple of keys, indices and field names, or a string such as `['x'][0]`.
        function: makes a batch from a list of examples, instead of the rules.
        as_torch: a list in an example is a container under the rule "stack", and a number in a ready batch is passed
            on, as by PyTorch's `default_collate` and `default_convert`.
    """

    default: Rule = "stack"
    paths: tuple[tuple[tuple[Any, ...] | str, Rule], ...] = ()
    function: Callable[[list[Any]], Any] | None = None
    as_torch: bool = False

    @classmethod
    def of(cls, collate: Any) -> Collation:
        """Parse the option. Raises `OptionError`."""
        if isinstance(collate, Mapping):
            return cls(paths=tuple((_path(key), _rule(rule)) for key, rule in collate.items()))
        if callable(collate):
            return cls(default="asis", function=collate)
        return cls(default=_rule(collate))

    def spec(self, example: Any) -> Spec:
        """Describe an example. Under rules that allow differing sizes, more lists count as arrays."""
        if self.function or (self.default in ("stack", "asis") and not self.paths):
            return Spec.of(made_plain(example), lambda part: False) if self.as_torch else Spec.of(example)
        example = made_plain(example)
        leaves, tree = flattened(example, lambda part: is_row(part) or is_of_tokens(part), is_plain=True)
        keep = {
            id(leaf)
            for leaf, accessor in zip(leaves, tree.accessors(), strict=True)
            if type(leaf) is list and self._joins(leaf, self.rule_at(accessor))
        }
        return Spec.of(example, lambda part: id(part) in keep or (is_array(part) and not self.as_torch))

    def rules(self, spec: Spec) -> list[Rule]:
        """The rule of each leaf. Raises `OptionError` for a missing path, or for missing dimensions in `pad(to=…)`."""
        accessors = spec.tree.accessors()
        there = {name for accessor in accessors for name in _names(accessor)} if self.paths else set()
        for path, _ in self.paths:
            if path not in there:
                raise OptionError(_no_path(path, spec))
        rules = [self.rule_at(accessor) for accessor in accessors]
        for rule in {self.default, *self._by_path.values()}:
            under = [leaf for leaf, its in zip(spec.leaves, rules, strict=True) if its == rule]
            _check_sizes(rule, under)
        return rules

    @cached_property
    def _by_path(self) -> dict[tuple[Any, ...] | str, Rule]:
        return dict(self.paths)

    def rule_at(self, accessor: Any) -> Rule:
        """The rule of a leaf: that of the longest configured path that leads to it."""
        if not self.paths:
            return self.default
        return next((self._by_path[name] for name in _names(accessor) if name in self._by_path), self.default)

    @staticmethod
    def _joins(part: list[Any], rule: Rule) -> bool:
        """True if a list is a single leaf under this rule."""
        return rule == "ragged" or isinstance(rule, Pad) or (rule == "single" and is_row(part))


def batch_leaf(leaf: Leaf, rule: Rule, rows: int | None) -> Leaf:
    """The leaf of a batch with `rows` rows (None if they vary), made from a leaf of the examples."""
    if rule == "asis":
        return leaf
    if leaf.kind is Kind.SPARSE:
        return dataclasses.replace(leaf, shape=(rows, *leaf.shape))
    if leaf.kind is Kind.RAGGED and not isinstance(rule, Pad):
        shape = (rows, None, *leaf.shape[1:])
        return dataclasses.replace(leaf, shape=shape, ragged_rank=leaf.ragged_rank + 1)
    if rule == "ragged" and leaf.shape:
        varying = [place for place, size in enumerate(leaf.shape) if size is None]
        rank = (varying[-1] if varying else 0) + 1
        shape = (rows, *[None] * rank, *leaf.shape[rank:])
        return Leaf(leaf.path, shape, leaf.dtype, Kind.RAGGED, rank)
    if rule == "single" and None in leaf.shape:
        return Leaf(leaf.path, (rows, *leaf.shape), leaf.dtype, Kind.VARYING)
    shape = leaf.shape
    if isinstance(rule, Pad):
        shape = tuple(_padded(rule, place, size) for place, size in enumerate(shape))
    return Leaf(leaf.path, (rows, *shape), leaf.dtype)


def _padded(rule: Pad, place: int, size: int | None) -> int | None:
    if rule.size(place) is not None:
        return rule.size(place)
    if size is None or place == 0:  # padded leaves are sequences, whose length may differ later
        return None
    return rounded(size, rule.multiple_of)


def rounded(size: int, multiple: int | None) -> int:
    """`size`, rounded up to a multiple of `multiple` if that is given."""
    return -(-size // multiple) * multiple if multiple else size


def is_stacked_in_place(spec: Spec, rules: Sequence[Rule]) -> bool:
    """True if every example has a fixed place in a batch, so that several workers can fill it."""
    return all(leaf.is_fixed and rule in ("stack", "single") for leaf, rule in zip(spec.leaves, rules, strict=True))


def filler(rule: Pad, leaf: Leaf) -> Any:
    """The padding value of a leaf. Raises `OptionError` if its dtype cannot hold the value."""
    if leaf.dtype == STRING:
        value = b"" if rule.values is None else rule.values
        if not isinstance(value, str | bytes):
            raise OptionError(f"pad(values={value!r}) does not fit {leaf.path or 'the leaf'}, which holds strings")
        return value.encode() if isinstance(value, str) else value
    try:
        value = leaf.dtype.type(0 if rule.values is None else rule.values)
    except (TypeError, ValueError, OverflowError) as error:
        raise OptionError(
            f"pad(values={rule.values!r}) does not fit {leaf.path or 'the leaf'}, which holds {leaf.dtype_name}"
        ) from error
    return value


def _rule(rule: Any) -> Rule:
    if isinstance(rule, Pad):
        return rule
    if isinstance(rule, str) and rule in _NAMES:
        return _NAMES[rule]
    raise OptionError(
        f"collate must be 'stack', 'pad', stoker.pad(…), 'ragged', a dict of these by path, or a function that takes "
        f"a list of examples; got {rule!r}"
    )


def _path(key: Any) -> tuple[Any, ...] | str:
    if isinstance(key, str) and key.startswith(("[", ".")):
        return key
    return key if isinstance(key, tuple) else (key,)


def _names(accessor: Any) -> Iterator[tuple[Any, ...] | str]:
    """The names by which a user may refer to a leaf or a container around it, the longest path first."""
    for depth in range(len(accessor), -1, -1):
        start = accessor[:depth]
        yield from itertools.product(*({entry.entry, getattr(entry, "field", entry.entry)} for entry in start))
        yield start.codify("")
        if depth == 1 and isinstance(start[0].entry, str):
            yield start[0].entry  # the key itself may look like a path


def _no_path(path: tuple[Any, ...] | str, spec: Spec) -> str:
    """The message about a path that does not exist."""
    paths = [leaf.path for leaf in spec.leaves]
    named = path if isinstance(path, str) else str(list(path))
    shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else "")
    text = f"collate names {named}, but the examples have no such path; they have {shown or 'a single leaf'}."
    words = {_words(its): its for its in paths[:_SEARCHED]}
    is_name = any(character.isalpha() for character in named)  # a similar number is not what was meant
    close = difflib.get_close_matches(_words(named), words, n=1) if is_name else []
    return f"{text} Did you mean {words[close[0]]}?" if close else text


def _words(path: str) -> str:
    """The keys in a path, without its punctuation."""
    return " ".join(re.findall(r"[\w-]+", path))


def _check_sizes(rule: Rule, leaves: list[Leaf]) -> None:
    """Raise `OptionError` if a rule gives sizes for dimensions that none of its leaves has."""
    if not isinstance(rule, Pad) or rule.to is None or not leaves:
        return
    most = max(leaves, key=lambda leaf: len(leaf.shape))
    if not any(leaf.undetermined for leaf in leaves) and len(most.shape) < len(rule.to):
        raise OptionError(
            f"pad(to={rule.to}) gives sizes for {len(rule.to)} dimensions, but {most.path or 'an example'} has "
            f"{len(most.shape)}: {most}."
        )


@dataclass(frozen=True)
class Form:
    """The form of examples and batches: determined by a worker or declared by the user, then shared by all processes.

    Attributes:
        spec: the spec of an example; for a collate function and a source of batches, that of a batch.
        rules: how each of its leaves is joined.
        batch: the spec of a batch, with None rows.
        in_place: each example has a fixed place in the batch.
    """

    spec: Spec
    rules: tuple[Rule, ...]
    batch: Spec
    in_place: bool

    @classmethod
    def of(cls, spec: Spec, rules: Sequence[Rule]) -> Form:
        """The form for batches of examples with this spec."""
        for leaf, rule in zip(spec.leaves, rules, strict=True):
            if isinstance(rule, Pad):
                filler(rule, leaf)
        batch = tuple(batch_leaf(leaf, rule, None) for leaf, rule in zip(spec.leaves, rules, strict=True))
        loose = tuple(_loosened(leaf, rule) for leaf, rule in zip(spec.leaves, rules, strict=True))
        in_place = is_stacked_in_place(spec, rules)
        return cls(Spec(spec.tree, loose), tuple(rules), Spec(spec.tree, batch), in_place)

    @cached_property
    def parts(self) -> tuple[PartSpec, ...]:
        """The arrays that make up a batch."""
        return tuple(part for leaf in self.batch.leaves for part in leaf.parts())

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """The number of `parts` of each leaf."""
        return tuple(len(leaf.parts()) for leaf in self.batch.leaves)

    def serialized(self) -> Form:
        """The form of the same batches with each component serialised to a string.

        A ragged or sparse leaf becomes a dict of its components, named as in TensorFlow.
        """
        strings = tuple(_serialized(leaf, self.single) for leaf in self.batch.leaves)
        tree = optree.tree_structure(self.spec.unflatten(strings))
        accessors = tree.accessors()
        rank = 1 if self.single else 0
        leaves = tuple(Leaf(accessor.codify(""), (None,) * rank, STRING) for accessor in accessors)
        return Form(self.spec, self.rules, Spec(tree, leaves), False)

    @cached_property
    def single(self) -> bool:
        """True if examples are handed out one by one."""
        return "single" in self.rules


def _loosened(leaf: Leaf, rule: Rule) -> Leaf:
    """The leaf that later examples must fit. Where sizes may differ, even those equal so far are left open."""
    if rule in ("single", "asis"):
        return dataclasses.replace(leaf, is_alone=True)
    if leaf.lenient or not (rule == "ragged" or isinstance(rule, Pad)):
        return leaf
    loose = len(leaf.shape) if isinstance(rule, Pad) else batch_leaf(leaf, rule, None).ragged_rank
    return dataclasses.replace(leaf, shape=(None,) * loose + leaf.shape[loose:], lenient=True, first=leaf.shape)


def _serialized(leaf: Leaf, single: bool) -> Any:
    """The structure of a leaf of a batch after each component is serialised, with placeholders at its leaves."""
    if leaf.kind is Kind.RAGGED:
        return {"flat_values": 0, "nested_row_splits": tuple(range(leaf.ragged_rank - single))}
    if leaf.kind is Kind.SPARSE:
        return {"dense_shape": 0, "indices": 0, "values": 0}
    return 0
