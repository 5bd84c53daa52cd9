"""Bad generators, iterables, arrays and structures: a clear error in the user's terms, and nothing hangs."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import stoker
from tests.sources_of_tests import plain_shard, plainly, skip, source, without_a_parameter
from tests.test_structures import SOURCES


# ── refused at once ──────────────────────────────────────────────────────────────────────────
def in_itself() -> list[Any]:
    outer: list[Any] = [[]]
    outer[0].append(outer)
    return outer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stoker.from_generator(plain_shard, shards=0), "shards must be at least 1, got 0"),
        (lambda: stoker.from_generator(plain_shard, shards=[]), r"shards must be at least 1, got \[\]"),
        (lambda: stoker.from_generator(plain_shard, shards=-1), "shards must be at least 1, got -1"),
        (lambda: stoker.from_generator(plain_shard, shards="abc"), "a number, or a list .* got a str: 'abc'"),
        (lambda: stoker.from_generator(plain_shard, shards=2, length=-5), "length must be .* got -5"),
        (lambda: stoker.from_generator(plain_shard, shards=2, length=2.5), "length must be .* got 2.5"),
        (lambda: stoker.from_generator(plain_shard, shards=2, open_shards=0), "open_shards must be .* got 0"),
        (
            lambda: stoker.from_generator(without_a_parameter, shards=2),
            r"without_a_parameter\(\) .*cannot be called with a shard.*def without_a_parameter\(shard\)",
        ),
        (
            lambda: stoker.from_generator(without_a_parameter(), shards=2),
            "got a generator object.*Pass the generator function itself.*from_iterable",
        ),
        (lambda: stoker.from_generator([1, 2], shards=2), r"needs a function fn\(shard\), got a list"),
        (lambda: stoker.from_iterable(5), "needs an iterable or a function .* got a int"),
        (lambda: stoker.from_arrays(), "needs at least one array"),
        (
            lambda: stoker.from_arrays(np.zeros(3), {"y": np.zeros(4)}),
            r"same number.*3 in \[0\], 4 in \[1\]\['y'\]",
        ),
        (lambda: stoker.from_arrays(np.float32(1)), "has no rows"),
        (lambda: stoker.from_arrays(in_itself()), "contains itself"),
        (lambda: stoker.from_arrays(np.array([object()])), "holds a object"),
        (lambda: stoker.from_arrays(np.zeros((0, 3))), "source is empty"),
        (lambda: stoker.pad(to=-1), r"pad\(to=…\) must be sizes .* got -1"),
        (lambda: stoker.pad(multiple_of=0), r"pad\(multiple_of=…\) must be an int of at least 1, got 0"),
    ],
)
def test_sources_without_meaning_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((stoker.SourceError, stoker.OptionError), match=f"(?s){message}"):
        stoker.Loader(make(), workers=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": True}, "shuffle=True needs a source with an index.*shuffle=1000"),
        ({"shuffle": -1}, "shuffle must be an int of at least 0, got -1"),
        ({"collate": "stak"}, "collate must be 'stack', 'pad'.* got 'stak'"),
        ({"collate": {"x": "paddd"}}, "collate must be 'stack', 'pad'.* got 'paddd'"),
        ({"collate": "pad", "batch_size": None}, "batch_size=None makes no batches"),
        ({"drop_remainder": True, "batch_size": None}, "batch_size=None makes no batches"),
        ({"memory_limit": 0}, "memory_limit must be an int of at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("how", ["generator", "iterable"])
def test_options_without_meaning_are_refused(how: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(source(how, plainly)[0], **options)


def test_a_source_of_batches_has_no_batch_size() -> None:
    with pytest.raises(stoker.OptionError, match=r"batched=True.*batch_size must be omitted or None, got 32"):
        stoker.Loader(stoker.from_generator(plain_shard, 2, batched=True), batch_size=32)


# ── told when it is read ─────────────────────────────────────────────────────────────────────
def refuse(
    data: Any, error: type[Exception], message: str, *, workers: tuple[int, ...] = (0, 1), **options: Any
) -> None:
    """Reading it twice raises this error twice."""
    for count in workers:
        with stoker.Loader(data, workers=count, **{"batch_size": 2, **options}) as loader:
            for _ in range(2):
                with pytest.raises(error, match=f"(?s){message}"):
                    list(loader)


def test_a_source_that_gives_nothing_is_an_error() -> None:
    refuse(stoker.from_generator(lambda shard: iter(()), 3), stoker.SourceError, "yields nothing in any of 3 shards")
    refuse(stoker.from_iterable(list), stoker.SourceError, "the iterable yields no example")


@pytest.mark.parametrize("how", SOURCES)
def test_skipping_everything_is_an_error(how: str) -> None:
    refuse(source(how, plainly)[0], stoker.SourceError, "stoker.SKIP for all", transform=skip)


def test_skipping_everything_of_a_later_epoch_is_an_empty_epoch() -> None:
    def early(shard: stoker.Shard) -> Iterator[int]:
        yield 1

    with stoker.Loader(stoker.from_generator(early, 3), batch_size=2, workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[1, 1], [1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_that_disagree_are_told_by_their_number(workers: int) -> None:
    def fickle(shard: stoker.Shard) -> Iterator[Any]:
        for n in range(6):
            yield {"x": n} if shard.index == 0 else {"y": n}

    refuse(
        stoker.from_generator(fickle, 2),
        stoker.SpecError,
        r"shard 1, example 0 .*structure changed: \['x'\] missing; \['y'\] unexpected",
        workers=(workers,),
    )

    def other_dtype(shard: stoker.Shard) -> Iterator[Any]:
        yield {"x": [np.float32(0), np.float64(0)][shard.index]}

    refuse(
        stoker.from_generator(other_dtype, 2),
        stoker.SpecError,
        r"at \['x'\] it holds float64 of shape \(\), expected float32 of shape \(\)",
        workers=(workers,),
    )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (9, "length=9 was declared, but the generator gave more"),
        (11, "length=11 was declared, but the generator gave 10 examples"),
    ],
)
def test_a_wrong_length_is_told_with_both_numbers(told: int, message: str) -> None:
    refuse(stoker.from_generator(plain_shard, 2, length=told), stoker.SourceError, rf"{message}.*\b10\b|{message}")


def test_a_source_that_was_said_never_to_end_and_ends_is_an_error() -> None:
    refuse(
        stoker.from_generator(plain_shard, 2, length=math.inf), stoker.SourceError, "ended after 10 examples.*math.inf"
    )


def test_a_function_that_returns_no_iterable_is_an_error() -> None:
    refuse(stoker.from_generator(lambda shard: 5, 2), stoker.WorkerError, "returned a int for shard 0, not a generator")


def test_an_exception_in_a_shard_is_told_with_shard_and_example() -> None:
    def broken(shard: stoker.Shard) -> Iterator[int]:
        yield from range(5)
        if shard.index == 1:
            raise KeyError("bad row")
        yield 5

    refuse(
        stoker.from_generator(broken, 3),
        stoker.WorkerError,
        r"shard 1, example 5 \(epoch \d.*raised KeyError: 'bad row'.*in broken",
    )


def test_an_item_that_cannot_be_pickled_is_told_by_its_number() -> None:
    items = stoker.from_iterable([1, 2, 3, threading.Lock()])
    refuse(items, stoker.SourceError, "item 3 of the iterable, a lock, cannot be sent to a worker", workers=(2,))


# ── structures ───────────────────────────────────────────────────────────────────────────────
def later(first: Any, last: Any) -> list[Any]:
    """Six examples, the last of them another one."""
    return [first] * 5 + [last]


FIVE = np.zeros(5, np.float32)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            later(FIVE, FIVE[:3]),
            {},
            r"example 5 .*float32 of shape \(3,\), expected float32 of shape \(5,\).*pad.*ragged",
        ),
        ([np.zeros((2, 3)), np.zeros((2, 4))], {}, r"shape \(2, 4\), expected .* \(2, 3\).*pad.*ragged"),
        (["a", "b\udcff"], {}, r"example 1 .*not valid Unicode: 'b\\udcff'.*surrogateescape"),
        ([{"t": np.array(["ok", "\ud800"], object)}], {}, r"example 0 .*\['t'\].*not valid Unicode"),
        (later({"a": 1, "b": FIVE}, {"a": 1, "b": None}), {}, r"example 5 .*\['b'\]"),
        (later("text", 5), {}, r"example 5 .*holds int64 of shape \(\), expected string"),
        (
            [{"a": 1}] * 4,
            {"collate": {"b": "pad"}},
            r"collate names \['b'\], but the examples have no such path.*they have \['a'\]",
        ),
        (
            [{"a": 1}] * 4,
            {"collate": {("a", 0): "pad"}},
            r"collate names \['a', 0\], but the examples have no such path",
        ),
        ([[1], [1, 2, 3]], {"collate": stoker.pad(to=2)}, r"example 1 .*size 3 in dimension 0, more than pad\(to=2\)"),
        ([[1], [2]], {"collate": stoker.pad(values="x")}, r"pad\(values='x'\) does not fit .*int64"),
        ([["a"], ["b"]], {"collate": stoker.pad(values=1)}, r"pad\(values=1\) does not fit .*strings"),
        ([FIVE, np.zeros((5, 1), np.float32)], {"collate": "ragged"}, r"example 1 .*\(5, 1\)"),
        ([FIVE] * 4, {"collate": lambda examples: 1 / 0}, "ZeroDivisionError"),
        ([FIVE] * 4, {"collate": lambda examples: None}, "None"),
    ],
)
def test_examples_that_cannot_be_joined_are_told(data: list[Any], options: dict[str, Any], message: str) -> None:
    refuse(data, stoker.StokerError, message, **options)


def test_what_does_not_fit_the_signature_is_told_with_path_wanted_and_got() -> None:
    tf = pytest.importorskip("tensorflow")

    def spec(shape: Any, dtype: Any) -> Any:
        return {"x": tf.TensorSpec(shape, dtype)}

    for value, signature, message in (
        (
            FIVE + 2j,
            spec((5,), tf.float64),
            r"at \['x'\] it holds complex64 of shape \(5,\), expected float64 of shape \(5,\)",
        ),
        (
            FIVE,
            spec((4,), tf.float32),
            r"at \['x'\] it holds float32 of shape \(5,\), expected float32 of shape \(4,\)",
        ),
        (
            FIVE,
            spec((None, None), tf.float32),
            r"at \['x'\] it holds float32 of shape \(5,\), expected .* \(None, None\)",
        ),
        (FIVE, spec((5,), tf.string), r"at \['x'\] it holds float32 of shape \(5,\), expected string of shape \(5,\)"),
        (FIVE, {"y": tf.TensorSpec((5,), tf.float32)}, r"\['y'\] missing; \['x'\] unexpected"),
        (300, spec((), tf.uint8), r"at \['x'\] it holds .*expected uint8"),
        (1.5, spec((), tf.int32), r"at \['x'\] it holds float64 of shape \(\), expected int32"),
    ):
        refuse([{"x": value}] * 3, stoker.SpecError, message, output_signature=signature, workers=(0,))
    for signature, message in (
        (5, "must be a tf.TensorSpec"),
        ({"x": tf.TensorSpec(None, tf.float32)}, r"output_signature\['x'\] must have a known number of dimensions"),
        ({}, "must be nested tf.TensorSpecs"),
    ):
        with pytest.raises(stoker.OptionError, match=message):
            stoker.Loader([{"x": FIVE}], output_signature=signature)


def test_an_endless_source_is_not_evaluated_for_ever() -> None:
    keras = pytest.importorskip("keras")

    def pairs(shard: stoker.Shard) -> Iterator[Any]:
        for _ in itertools.count():
            yield FIVE, np.float32(1)

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with stoker.Loader(stoker.from_generator(pairs, 2, length=math.inf), batch_size=4, workers=1) as loader:
        endless = loader.to_tf()
        with pytest.raises(stoker.OptionError, match=r"never ends.*validation_steps"):
            model.fit(endless, steps_per_epoch=2, validation_data=endless, verbose=0)
        with pytest.raises(stoker.OptionError, match=r"never ends.*steps"):
            model.evaluate(endless, verbose=0)
        model.fit(endless, steps_per_epoch=2, validation_data=endless, validation_steps=1, verbose=0)
