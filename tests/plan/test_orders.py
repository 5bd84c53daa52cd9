"""What users give as an order, against a plain reference: no process, no Loader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.epochs.index_epoch import IndexEpoch
from stoker.errors import OptionError, SourceError, StateError
from stoker.plan.batching import Batching, EpochCounts
from stoker.plan.drawn_orders import balanced, bucketed, weighted
from stoker.plan.host_shard import HostShard
from stoker.plan.order import Plan
from stoker.plan.orders import UserOrder, user_order
from stoker.plan.position import Position
from stoker.scheduler.work import IndexWork

LENGTH = 30
indices = st.integers(0, LENGTH - 1)
flat = st.lists(indices, min_size=1, max_size=70)
batches = st.lists(st.lists(indices, min_size=1, max_size=9), min_size=1, max_size=12)
#: Ways to write the same list.
WRITTEN: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    lambda items: [np.array(item, np.uint8) for item in items],
    lambda items: np.array(items, np.int16) if not isinstance(items[0], list) else items,
]


def order_of(given: Any, *, length: int = LENGTH, seed: int = 0, shuffle: bool = False) -> UserOrder:
    return user_order(given, length=length, seed=seed, shuffle=shuffle)


def counts_of(order: UserOrder, size: int, drop: bool = False, hosts: HostShard | None = None) -> EpochCounts:
    size = order.bound(None) if order.in_batches else size
    plan = Plan(order.length, size, False, 0, drop, given=order)
    batching = Batching(size, not drop, 0, 0, window=4, host_shard=hosts or HostShard(), is_ordered=order.in_batches)
    return EpochCounts(batching, plan, plan.takes if plan.is_fixed else None, False, False, False)


def read(counts: EpochCounts, epoch: int, taken: int = 0) -> list[list[int]]:
    """The examples of each batch from there on."""
    its = IndexEpoch(counts, Position(epoch, taken))
    rows = [its._rows_of(batch) for batch in range(its.batches())]
    return [its.numbers_of(IndexWork(batch, 0, count, count)) for batch, count in enumerate(rows)]


def cut(items: list[Any], size: int, drop: bool) -> list[list[int]]:
    """The reference: the batches that a list of indices or of batches stands for."""
    if isinstance(items[0], list):
        return items
    found = [items[start : start + size] for start in range(0, len(items), size)]
    return found[:-1] if drop and len(found[-1]) < size else found


@settings(max_examples=1000)
@given(
    epochs=st.one_of(st.lists(flat, min_size=3, max_size=3), st.lists(batches, min_size=3, max_size=3)),
    size=st.integers(1, 9),
    drop=st.booleans(),
    how=st.sampled_from(["a list", "a function", "a generator function"]),
    written=st.sampled_from(WRITTEN),
    data=st.data(),
)
def test_an_epoch_is_what_the_order_says_from_any_batch_on_and_for_any_host(
    epochs: list[list[Any]],
    size: int,
    drop: bool,
    how: str,
    written: Callable[[list[Any]], Any],
    data: st.DataObject,
) -> None:
    in_batches = isinstance(epochs[0][0], list)
    drop = drop and not in_batches

    def function(epoch: int, rng: np.random.Generator) -> Any:
        return written(epochs[epoch])

    def generator(epoch: int, rng: np.random.Generator) -> Iterator[Any]:
        yield from written(epochs[epoch])

    if how == "a list":
        epochs = [epochs[0]] * 3
    if in_batches:  # the memory of a batch is fixed at the start
        most = max(map(len, epochs[0]))
        epochs = [[batch[:most] for batch in epoch] for epoch in epochs]
    given = {"a list": written(epochs[0]), "a function": function, "a generator function": generator}[how]
    order = order_of(given)
    counts = counts_of(order, size, drop)
    for epoch in (0, 1, 2):
        expected = cut(epochs[epoch], size, drop)
        if not expected:
            with pytest.raises(SourceError, match=r"leaves no batch of \d+ examples"):
                read(counts, epoch)
            continue
        assert read(counts, epoch) == expected
        taken = data.draw(st.integers(0, len(expected)))
        assert read(counts, epoch, taken) == expected[taken:]
        hosts = data.draw(st.integers(1, 3))
        if not (expected := cut(epochs[epoch], size * hosts, drop)):
            continue
        parts = [read(counts_of(order, size * hosts, drop, HostShard(host, hosts)), epoch) for host in range(hosts)]
        joined = [list(itertools.chain(*step)) for step in zip(*parts, strict=True)]
        assert joined == expected
    if counts.plan is not None and counts.plan.is_fixed:
        assert counts.outline(HostShard()).cardinality == len(cut(epochs[0], size, drop))


@settings(max_examples=200)
@given(flat, st.integers(0, 5))
def test_repetitions_have_numbers_of_their_own_and_their_example(items: list[int], epoch: int) -> None:
    its = IndexEpoch(counts_of(order_of(items), 100), Position(epoch))
    work = IndexWork(0, 0, len(items), len(items))
    numbers = its.indices(work).tolist()
    assert len(set(numbers)) == len(items)
    assert [number % LENGTH for number in numbers] == items
    if len(set(items)) == len(items):
        assert numbers == items, "as without an order"


@given(st.lists(indices, min_size=1, max_size=70), st.integers(0, 3))
def test_a_shuffled_list_is_permuted_anew_in_each_epoch(items: list[int], epoch: int) -> None:
    plan = Plan(LENGTH, 4, True, 3, False, given=order_of(items, shuffle=True))
    found = plan.order(epoch).indices(0, len(items)).tolist()
    assert sorted(found) == sorted(items)
    if len(set(items)) > 12:
        assert found != plan.order(epoch + 1).indices(0, len(items)).tolist()


def test_a_mask_names_the_examples_where_it_is_true() -> None:
    mask = np.arange(LENGTH) % 7 == 3
    for written in (mask, mask.tolist(), lambda epoch, rng: mask, lambda epoch, rng: iter(mask.tolist())):
        assert order_of(written).take(0).indices.tolist() == [3, 10, 17, 24]


def test_a_range_takes_no_memory_before_it_is_checked() -> None:
    assert order_of(range(2, 29, 9)).first.indices.tolist() == [2, 11, 20]
    with pytest.raises(OptionError, match="position 999999999999 holds 999999999999"):
        order_of(range(10**12))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 30], r"position 1 holds 30, but the source has the examples 0 … 29"),
        ([1, 2, -3], r"position 2 holds -3, .* Negative indices do not count from the end. Pass 27"),
        ([1, 2**70], rf"position 1 holds {2**70}, but the source has"),
        (np.array([3, 2**63], np.uint64), rf"position 1 holds {2**63}, but"),
        ([1, 2.0], r"position 1 holds 2.0, which is not a whole number"),
        (np.array([1.5]), r"whole numbers, got float64, such as np.float64\(1.5\); use `.astype\(int\)`"),
        (["a"], "position 0 holds 'a', which is not a whole number"),
        ([1, None], "position 1 holds None"),
        ([], "it is empty: an epoch needs at least one example"),
        (np.zeros(0), "it is empty"),
        (np.zeros(LENGTH, bool), "the mask is False for every example"),
        ([True] * 4, "a mask needs a bool for each of the source's 30 examples, got 4"),
        (np.ones((2, 2), bool), "a mask has one dimension"),
        ([[True, False]], "batch 0 holds bools"),
        ([[1], []], "batch 1 is empty. Leave it out"),
        (np.zeros((2, 0), int), "batch 0 is empty"),
        ([[1], [2, 30]], "batch 1, row 1 holds 30"),
        ([[1], [2, "b"]], "batch 1, row 1 holds 'b'"),
        ([[1], 2], "item 1 is 2, but the items before it are batches"),
        ([1, [2]], r"position 1 holds \[2\], which is not a whole number"),
        ([[[1]]], r"batch 0, row 0 holds \[1\]"),
        (np.zeros((2, 2, 2), int), r"an array of shape \(2, 2, 2\)"),
        (np.array(3), r"an array of shape \(\)"),
        ({1, 2}, r"a set has no order. Pass `sorted\(...\)`"),
        ({1: 2}, "it is a dict, but must be"),
        ("12", "it is a str, but must be"),
        (7, "it is a int, but must be"),
        (iter([1]), "a list_iterator can be iterated only once"),
        (list, "the class list itself. Pass an instance"),
        (lambda epoch: [1], r"a function of two parameters, `\(epoch, rng\)`"),
        (lambda epoch, rng: None, "for epoch 0: it is a NoneType"),
        (lambda epoch, rng: iter([]), "for epoch 0: it is empty"),
        (lambda epoch, rng: iter([1, "x"]), "for epoch 0: position 1 holds 'x'"),
        (lambda epoch, rng: itertools.repeat(1), "given more than 10,000,030 indices and seems to have no end"),
        (lambda epoch, rng: itertools.repeat([1] * 9_999), "given more than 10,000,030 indices"),
    ],
)
def test_what_is_no_order_is_refused_with_its_place(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        order_of(given)


def test_a_later_epoch_of_another_kind_is_refused_and_named() -> None:
    order = order_of(lambda epoch, rng: [[1, 2]] if not epoch else [1])
    with pytest.raises(SourceError, match="order= for epoch 4: it gave single indices, but for epoch 0 batches"):
        order.prepare(4)
    order = order_of(lambda epoch, rng: [[1] * (3 + epoch)])
    with pytest.raises(SourceError, match=r"for epoch 2: batch 0 has 5 indices, more than 3.*Pass batch_size=5"):
        order.prepare(2)
    order.bound(4)
    assert order.prepare(1).most_rows() == 4
    with pytest.raises(OptionError, match="batch 0 has 3 indices, more than 2"):
        order.bound(2)


def test_a_function_is_called_once_for_an_epoch_with_the_same_generator_in_each_run() -> None:
    called: list[int] = []

    def function(epoch: int, rng: np.random.Generator) -> Any:
        called.append(epoch)
        return rng.permutation(LENGTH)

    order, other = order_of(function), order_of(function)
    for epoch in (0, 1, 2):
        order.prepare(epoch)
        assert np.array_equal(order.take(epoch).indices, other.take(epoch).indices)
    assert called == [0, 0, 1, 1, 2, 2]
    assert not np.array_equal(order.take(3).indices, order_of(function, seed=1).take(3).indices)


def test_a_state_in_another_order_of_the_epoch_is_refused() -> None:
    counts = counts_of(order_of(lambda epoch, rng: rng.permutation(LENGTH)), 4)
    saved = IndexEpoch(counts, Position(2)).position(3)
    assert saved is not None
    assert saved.order
    assert IndexEpoch(counts, saved).batches() == 5
    other = counts_of(order_of(lambda epoch, rng: np.arange(LENGTH)), 4)
    with pytest.raises(StateError, match="gives another order for epoch 2 than when the state was saved"):
        IndexEpoch(other, saved)
    with pytest.raises(StateError, match="counts 9 batches taken, but epoch 1 has only 8"):
        IndexEpoch(other, Position(1, 9))


# ── weighted, balanced, bucketed ─────────────────────────────────────────────────────────────
def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_weighted_draws_by_weight() -> None:
    weights = np.array([0, 1, 2, 7])
    drawn = np.bincount(weighted(weights, n=100_000)(0, rng()), minlength=4)
    assert drawn[0] == 0
    assert np.allclose(drawn / 100_000, weights / 10, atol=0.01)


def test_weighted_without_replacement_draws_as_if_one_after_the_other() -> None:
    weights, draws = np.array([0.0, 1, 2, 7]), 20_000
    order, generator = weighted(weights, n=2, replacement=False), rng()
    pairs = np.array([order(0, generator) for _ in range(draws)])
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert np.allclose(np.bincount(pairs[:, 0], minlength=4) / draws, [0, 0.1, 0.2, 0.7], atol=0.015)
    after = pairs[pairs[:, 0] == 3, 1]
    assert np.allclose(np.bincount(after, minlength=4) / len(after), [0, 1 / 3, 2 / 3, 0], atol=0.015)
    assert sorted(weighted(weights, replacement=False)(0, rng()).tolist()) == [1, 2, 3], "n: all that can be drawn"
    assert weighted(weights).count == 4


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(0, 9))
def test_balanced_gives_each_class_equally_often_and_its_members_too(labels: list[str], seed: int) -> None:
    order = balanced(iter(labels))
    found = order(0, rng(seed))
    assert len(found) == order.count
    for name in set(labels):
        its = [member for member in found.tolist() if labels[member] == name]
        assert len(its) == len(labels) // len(set(labels))
        counts = [its.count(member) for member, label in enumerate(labels) if label == name]
        assert max(counts) - min(counts) <= 1


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=80),
    st.lists(st.integers(0, 40), max_size=4, unique=True).map(sorted),
    st.data(),
)
def test_bucketed_batches_are_of_one_bucket_and_hold_each_example_once(
    lengths: list[int], boundaries: list[int], data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=len(boundaries) + 1, max_size=len(boundaries) + 1))
    order = bucketed(lengths, boundaries, sizes)
    found = order(0, rng())
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert len(found) == order.count
    assert max(map(len, found)) == order.most
    for batch in found:
        buckets = {sum(lengths[row] >= edge for edge in boundaries) for row in batch.tolist()}
        assert len(buckets) == 1
        assert len(batch) <= sizes[buckets.pop()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weighted([1, -2]), "weight 1 is -2.0. Weights must be finite and at least 0"),
        (lambda: weighted([1, float("nan")]), "weight 1 is nan"),
        (lambda: weighted([float("inf")]), "weight 0 is inf"),
        (lambda: weighted([0, 0]), "all 2 weights are 0"),
        (lambda: weighted([]), "there are no weights"),
        (lambda: weighted(["a"]), "weights must be numbers"),
        (lambda: weighted(3), "pass a sequence with one weight for each example"),
        (lambda: weighted([[1, 2]]), r"an array of shape \(1, 2\)"),
        (lambda: weighted([1], n=0), "n must be an int of at least 1, got 0"),
        (lambda: weighted([1], n=1.5), "n must be an int of at least 1, got 1.5"),
        (lambda: weighted([1, 0, 3], n=3, replacement=False), "n=3 examples cannot be drawn.*only 2 of 3 have"),
        (lambda: weighted([1], replacement="no"), "replacement must be True or False"),
        (lambda: balanced([]), "there are no labels"),
        (lambda: balanced(np.eye(3)), r"shape \(3, 3\). For one-hot labels, pass `labels.argmax\(axis=1\)`"),
        (lambda: balanced([1.0, float("nan")]), "label 1 is nan"),
        (lambda: balanced(np.array([1, "a"], object)), "labels must be of one .*Label 1 is 'a', but label 0 is 1"),
        (lambda: balanced(["a", "b", 3]), "all numbers, all strings or all dates. Label 2 is 3, but label 0 is 'a'"),
        (lambda: balanced(["a", float("nan")]), "Label 1 is nan, but label 0 is 'a'"),
        (lambda: balanced([None, 1]), "Label 0 is None"),
        (lambda: balanced(np.array([1, float("nan")], object)), "label 1 is nan. Make such examples a class of their"),
        (lambda: balanced(np.array(["2020-01-01", "NaT"], "datetime64[D]")), "label 1 is NaT"),
        (lambda: bucketed([1, 2], [5, 5]), r"boundaries must be increasing numbers, got \[5, 5\]"),
        (lambda: bucketed([1, 2], ["a"]), "boundaries must be increasing numbers"),
        (lambda: bucketed([1, 2], [5], batch_size=0), "batch_size must be an int of at least 1, got 0"),
        (lambda: bucketed([1, 2], [5], batch_size=[1]), "1 numbers for 2 buckets. 1 boundaries make 2"),
        (lambda: bucketed([float("nan")], [5]), "length 0 is nan"),
        (lambda: bucketed(["abc"], [5]), "lengths must be numbers"),
        (lambda: order_of(weighted([1, 2])), "made for 2 examples, but the source has 30"),
        (lambda: order_of(balanced("ab")), "stoker.balanced was made for 2 examples, but the source has 30"),
        (lambda: order_of(bucketed([1], [])), "made for 1 examples"),
        (lambda: order_of(weighted([1] * LENGTH), shuffle=True), "shuffle=True does not apply: it determines its own"),
        (lambda: order_of(lambda epoch, rng: [1], shuffle=True), "shuffle=True does not apply: shuffle with its `rng`"),
        (lambda: order_of([[1]], shuffle=True), "whole batches, so shuffle=True does not apply. Pass a function"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
