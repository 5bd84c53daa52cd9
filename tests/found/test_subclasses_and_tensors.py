"""Subclasses of numbers, strings and containers, all mappings, and whatever tensors PyTorch and JAX make."""

from __future__ import annotations

import array
import collections
import enum
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.structure.forms import Misfit, Ragged, Sparse
from stoker.structure.spec import Spec
from stoker.structure.values import canonical


class Whole(int):
    def __int__(self) -> int:
        raise AssertionError("what is in it counts, not what it says")


class Real(float):
    pass


class Text(str):
    pass


class Level(enum.IntEnum):
    LOW = 3


class Name(str, enum.Enum):
    CAT = "cat"


class Colour(enum.Enum):
    RED = 1


class Named(dict[str, Any]):
    pass


class Row(tuple[Any, ...]):
    def __new__(cls, *items: Any) -> Row:
        return super().__new__(cls, items)


class Items(list[Any]):
    pass


class Lazy(Mapping[str, Any]):
    """Reads its parts when they are asked for."""

    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def __getitem__(self, key: str) -> Any:
        return self.parts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Whole(5), 5),
        (Real(0.5), 0.5),
        (Text("a"), "a"),
        (Level.LOW, 3),
        (Name.CAT, "cat"),
        (enum.IntFlag("Flag", "A B").B, 2),
        (np.bool_(True), True),
        ([Level.LOW, 4], [3, 4]),
        (range(3), [0, 1, 2]),
        (Items([1, 2]), [1, 2]),
        (collections.UserList([1, 2]), [1, 2]),
        (bytearray(b"ab"), b"ab"),
        (array.array("h", [1, 2]), np.array([1, 2], np.int16)),
    ],
)
def test_a_value_of_a_subclass_is_what_it_is_a_subclass_of(value: Any, plain: Any) -> None:
    came, expected = canonical(value), canonical(plain)
    assert (came.dtype, came.tolist()) == (expected.dtype, expected.tolist())


def test_a_member_of_an_enumeration_without_numbers_is_refused_in_words() -> None:
    with pytest.raises(Misfit, match=r"Colour\.RED, which is not a number.*IntEnum"):
        canonical(Colour.RED)


MAPPINGS: list[Callable[[dict[str, Any]], Any]] = [
    Named,
    collections.UserDict,
    types.MappingProxyType,
    collections.ChainMap,
    collections.Counter,
    lambda parts: Lazy(**parts),
]


@pytest.mark.parametrize("make", MAPPINGS)
def test_every_mapping_is_a_dict(make: Any) -> None:
    spec = Spec.of({"x": 1, "y": {"z": 2.5}})
    odd = make({"x": 1, "y": make({"z": 2.5})})
    assert Spec.of(odd) == spec
    assert spec.flatten(odd) == [1, 2.5]
    assert spec.flatten({"x": 1, "y": make({"z": 2.5})}) == [1, 2.5]


def test_keys_need_not_be_strings_nor_in_order() -> None:
    spec = Spec.of({"a": 1, 2: 2, None: 3, ("b", 0): 4})
    assert dict(
        zip([leaf.path for leaf in spec.leaves], spec.flatten({None: 3, ("b", 0): 4, 2: 2, "a": 1}), strict=True)
    ) == {
        "['a']": 1,
        "[2]": 2,
        "[None]": 3,
        "[('b', 0)]": 4,
    }


def odd_example(index: int) -> Any:
    return collections.UserDict(
        x=Row(Whole(index), Items([Real(index), "a"])), level=Level.LOW, ids=range(2), name=Name.CAT
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_odd_examples_are_those_of_plain_ones(workers: int) -> None:
    with stoker.Loader(range(4), batch_size=2, transform=odd_example, workers=workers) as loader:
        first, _ = loader
    assert type(first) is dict
    assert type(first["x"]) is tuple
    assert (first["x"][0].tolist(), first["x"][1][0].tolist()) == ([0, 1], [0.0, 1.0])
    assert (first["level"].tolist(), first["ids"].tolist()) == ([3, 3], [[0, 1], [0, 1]])
    assert first["name"].tolist() == [b"cat", b"cat"]


def test_odd_and_plain_examples_go_together() -> None:
    data = [{"x": 1, "n": [1, 2]}, Named(x=Whole(2), n=range(3)), collections.UserDict(x=Level.LOW, n=Items([4]))]
    with stoker.Loader(data, batch_size=3, collate={"n": "pad"}, workers=0) as loader:
        (batch,) = loader
    assert batch["x"].tolist() == [1, 2, 3]
    assert batch["n"].tolist() == [[1, 2, 0], [0, 1, 2], [4, 0, 0]]


# ── tensors ──────────────────────────────────────────────────────────────────────────────────
def test_tensors_of_pytorch_are_read_whatever_their_gradient_bits_and_dtype() -> None:
    torch = pytest.importorskip("torch")
    ones, complex_ones = torch.ones(2), torch.tensor([1 + 2j, 3 - 1j])
    for value, expected in (
        (ones.requires_grad_(), [1, 1]),
        (torch.nn.Parameter(torch.ones(2)), [1, 1]),
        (complex_ones.conj(), [1 - 2j, 3 + 1j]),
        (complex_ones.conj().imag, [-2, 1]),
    ):
        assert canonical(value).tolist() == expected  # type: ignore[union-attr]  # no Sparse
    pytest.importorskip("ml_dtypes")
    brief = canonical(torch.tensor([1.5, -2, 1e38]).bfloat16().requires_grad_())
    assert isinstance(brief, np.ndarray)
    assert (brief.dtype.name, brief.astype(np.float32).tolist()[:2]) == ("bfloat16", [1.5, -2])
    with pytest.raises(Misfit, match=r"Tensor that NumPy cannot read: .*meta"):
        canonical(torch.ones(2, device="meta"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, that its sparse and nested tensors are young
def test_sparse_and_nested_tensors_of_pytorch_are_sparse_and_ragged() -> None:
    torch = pytest.importorskip("torch")
    dense = torch.tensor([[0, 1.5], [2, 0]])
    twice = torch.sparse_coo_tensor([[0, 0, 1], [1, 1, 0]], [0.5, 1, 2], (2, 2))
    for value in (dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc(), twice.requires_grad_()):
        came = canonical(value)
        assert isinstance(came, Sparse)
        assert [part.tolist() for part in came] == [[[0, 1], [1, 0]], [1.5, 2.0], [2, 2]]
    for shapes in ([(2,), (3,)], [(2, 4), (3, 4)], [(2, 4), (3, 5)]):
        parts = [torch.rand(shape) for shape in shapes]
        came = canonical(torch.nested.nested_tensor(parts))
        assert isinstance(came, Ragged)
        assert came.values.reshape(-1).tolist() == [one for part in parts for one in part.reshape(-1).tolist()]
        assert came.splits[0].tolist() == [0, 2, 5]
        assert len(came.splits) == (2 if shapes[0][1:] != shapes[1][1:] else 1)


def test_sparse_arrays_of_jax_are_sparse() -> None:
    sparse = pytest.importorskip("jax.experimental.sparse")
    dense = np.array([[0, 1.5], [2, 0]], np.float32)
    filled = sparse.BCOO((np.array([0.5, 2, 1, 9]), np.array([[0, 1], [1, 0], [0, 1], [2, 2]])), shape=(2, 2))
    for value in (
        sparse.BCOO.fromdense(dense),
        sparse.BCSR.fromdense(dense),
        sparse.BCOO.fromdense(dense, n_batch=1),
        sparse.BCOO.fromdense(dense, n_dense=1),
        filled,
    ):
        came = canonical(value)
        assert isinstance(came, Sparse)
        assert [part.tolist() for part in came] == [[[0, 1], [1, 0]], [1.5, 2.0], [2, 2]]
