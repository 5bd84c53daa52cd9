"""Going on from a state gives what would have come: every kind of source, any place, another number of workers."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stoker
from tests.state import code

NUMBERS = code.Numbers()
SHARDS = stoker.from_generator(code.shard_of, shards=len(code.SIZES), open_shards=3)
KNOWN = stoker.from_generator(code.shard_of, shards=len(code.SIZES), open_shards=4, length=code.LENGTH)

LOADERS: dict[str, dict[str, Any]] = {
    "by index": {"source": NUMBERS},
    "shuffled": {"source": NUMBERS, "shuffle": True, "seed": 5},
    "without the remainder": {"source": NUMBERS, "drop_remainder": True},
    "arrays": {"source": stoker.from_arrays({"n": np.arange(code.LENGTH)}), "shuffle": True},
    "SKIP and Many": {"source": NUMBERS, "transform": code.odd_ones, "shuffle": True},
    "SKIP found on the way": {"source": NUMBERS, "transform": code.secretly_odd},
    "a generator": {"source": SHARDS},
    "a generator, shuffled": {"source": SHARDS, "shuffle": 4, "seed": 9},
    "a generator of known length": {"source": KNOWN, "drop_remainder": True},
    "a generator with SKIP and Many": {"source": SHARDS, "transform": code.odd_ones},
    "an iterable": {"source": stoker.from_iterable(code.items)},
    "an iterable, shuffled": {"source": stoker.from_iterable(code.items), "shuffle": 6},
    "an iterable with SKIP and Many": {"source": stoker.from_iterable(code.items), "transform": code.odd_ones},
    "an iterable with SKIP on the way": {"source": stoker.from_iterable(code.items), "transform": code.secretly_odd},
    "one by one": {"source": NUMBERS, "batch_size": None, "transform": code.varying, "shuffle": True},
    "one by one, in runs": {"source": code.InRuns(), "batch_size": None, "shuffle": True},
    "one by one, of a generator": {"source": SHARDS, "batch_size": None, "transform": code.varying},
    "one by one, of an iterable": {"source": stoker.from_iterable(code.items), "batch_size": None},
}


def loader(how: dict[str, Any], workers: int, **more: Any) -> stoker.Loader:
    return stoker.Loader(**{"batch_size": 6, **how, "workers": workers, **more})


def plain(element: Any) -> Any:
    """What can be compared by ==."""
    return {key: np.asarray(value).tolist() for key, value in element.items()}


@pytest.mark.parametrize("name", LOADERS)
def test_going_on_gives_the_rest_of_the_epoch_and_the_next_one(name: str) -> None:
    how = LOADERS[name]
    with loader(how, workers=2) as whole:
        epochs = [[plain(one) for one in whole] for _ in range(3)]
    places = range(len(epochs[1]) + 1) if len(epochs[1]) < 20 else (0, 1, 20, 31, 32, 33, len(epochs[1]) - 1)
    states = {}
    with loader(how, workers=2) as first:
        list(first)
        batches = iter(first)
        for place in range(len(epochs[1]) + 1):
            states[place] = json.loads(json.dumps(first.state_dict()))
            next(batches, None)
        assert json.loads(json.dumps(first.state_dict()))["epoch"] == 2
    with loader(how, workers=1) as other, loader(how, workers=0) as inline:
        for place in places:
            again = inline if place % 3 else other
            again.load_state_dict(states[place])
            if states[place]["epoch"] == 1:
                assert [plain(one) for one in again] == epochs[1][place:], place
            if place % 4 == 0 or states[place]["epoch"] == 2:
                assert [plain(one) for one in again] == epochs[2], place


def below_eight(number: int) -> int:
    if number >= 8:
        raise ValueError(number)
    return number


def below_eight_or_skip(number: int) -> Any:
    return number if number < 8 else stoker.SKIP


@pytest.mark.parametrize("how", [{"transform": below_eight, "on_error": "skip"}, {"transform": below_eight_or_skip}])
@pytest.mark.parametrize(
    "source",
    [range(14), stoker.from_iterable(range(14)), stoker.from_generator(lambda shard: iter(range(14)), 1)],
    ids=["by index", "an iterable", "a generator"],
)
def test_a_rest_of_which_nothing_can_be_batched_ends_the_epoch_as_without_a_stop(source: Any, how: Any) -> None:
    for workers, size in ((0, 4), (1, 4), (0, None)):
        with stoker.Loader(source, batch_size=size, workers=workers, **how) as whole:
            batches = iter(whole)
            came = [np.asarray(batch).tolist() for batch in itertools.islice(batches, 2 if size else 8)]
            state = whole.state_dict()
            assert state["epoch"] == 0
            assert list(batches) == []
        with stoker.Loader(source, batch_size=size, workers=workers, **how) as resumed:
            resumed.load_state_dict(state)
            assert list(resumed) == []
            assert resumed.state_dict()["epoch"] == 1
            assert [np.asarray(batch).tolist() for batch in resumed] == came


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("name", [name for name in LOADERS if "iterable" not in name])
def test_two_iterations_of_one_epoch_do_not_disturb_each_other(name: str, workers: int) -> None:
    with loader(LOADERS[name], workers, prefetch=2) as data:
        whole = [plain(one) for one in data]
        data.load_state_dict(data.state_dict() | {"epoch": 0, "batches": 0})
        first = iter(data)
        begun = [plain(next(first)) for _ in range(3)]
        data.load_state_dict(data.state_dict() | {"epoch": 0, "batches": 0, "stream": None})
        second = iter(data)
        again = [plain(next(second)) for _ in range(2)]
        assert begun + [plain(one) for one in first] == whole  # at its end, workers leave its shards alone
        assert again + [plain(one) for one in second] == whole


def three_of_each(number: int) -> Any:
    return stoker.Many([number] * 3) if number > 6 else number


def ten(shard: stoker.Shard) -> Iterator[int]:
    yield from range(10)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_may_end_with_the_first_many_of_a_shard(workers: int) -> None:
    how = {"source": stoker.from_generator(ten, shards=1), "transform": three_of_each, "batch_size": 5}
    with loader(how, workers) as data:
        whole = [batch.tolist() for batch in data]
    with loader(how, workers) as data:
        batches = iter(data)
        assert [next(batches).tolist(), next(batches).tolist()] == whole[:2] == [[0, 1, 2, 3, 4], [5, 6, 7, 7, 7]]
        state = data.state_dict()
    with loader(how, workers) as data:
        data.load_state_dict(state)
        assert [batch.tolist() for batch in data] == whole[2:]


def test_a_state_of_a_state_is_as_good() -> None:
    for how in (LOADERS["a generator with SKIP and Many"], LOADERS["an iterable with SKIP on the way"]):
        with loader(how, workers=1) as whole:
            expected = [plain(one) for one in whole]
        state, came = None, []
        for workers in itertools.islice(itertools.cycle([0, 2, 1]), len(expected)):
            with loader(how, workers) as part:
                if state is not None:
                    part.load_state_dict(state)
                came.append(plain(next(iter(part))))
                state = json.loads(json.dumps(part.state_dict()))
        assert came == expected


@pytest.mark.parametrize(("kind", "again"), [("an int", False), ("a dict", False), ("no JSON", True)])
def test_a_resumable_iterator_goes_on_by_its_own_state(kind: str, again: bool, tmp_path: Path) -> None:
    state = {"an int": int, "a dict": functools.partial(dict_of), "no JSON": np.int64}[kind]
    asked = tmp_path / "asked"
    source = stoker.from_generator(
        functools.partial(code.Resumable, file=str(asked), state=state), shards=10, open_shards=3
    )
    with loader({"source": source}, workers=1) as whole:
        expected = [plain(one) for one in whole]
    with loader({"source": source}, workers=1) as first:
        batches = iter(first)
        assert [plain(next(batches)) for _ in range(4)] == expected[:4]
        told = json.loads(json.dumps(first.state_dict()))
        del batches
    asked.write_text("")
    with loader({"source": source, "ahead": False, "lazy": True}, workers=2) as second:
        second.load_state_dict(told)
        assert [plain(one) for one in second] == expected[4:]
    described = 1  # each worker that is asked what examples look like reads one
    read_again = len(asked.read_text()) - (code.LENGTH - 4 * 6) - described
    assert read_again > 0 if again else read_again <= 6, "only rows that were left at the ends of shards"


@pytest.mark.parametrize("kind", ["p:", "x:", "", "j"])
def test_a_state_from_a_file_carries_no_pickle_to_a_worker(kind: str, tmp_path: Path) -> None:
    flag = tmp_path / "loaded"
    source = stoker.from_generator(
        functools.partial(code.Resumable, file=str(tmp_path / "asked"), state=int), shards=10, open_shards=3
    )
    with loader({"source": source}, workers=1) as one:
        next(iter(one))
        state = json.loads(json.dumps(one.state_dict()))
        pickled = kind + base64.b64encode(pickle.dumps(Evil(flag))).decode()
        states = [progress for _, _, progress in state["stream"]["places"] if progress is not None and progress[3]]
        assert states, "there is one that can be changed"
        for progress in states:
            progress[3] = pickled
        with pytest.raises(stoker.StateError, match="not the state of an iterator"):
            one.load_state_dict(state)
    assert not flag.exists()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return Path.touch, (self.flag,)


def dict_of(at: int) -> dict[str, int]:
    return {"at": at}


def test_tensorflow_may_go_on_anywhere() -> None:
    for name in ("shuffled", "a generator", "one by one", "one by one, of a generator", "SKIP and Many"):
        how = LOADERS[name]
        with loader(how, workers=1) as first:
            dataset = first.to_tf()
            expected = [[plain(one) for one in dataset.as_numpy_iterator()] for _ in range(2)]
        with loader(how, workers=2) as second:
            batches = iter(second.to_tf())
            for _ in range(5):
                next(batches)
            state = second.state_dict()
            assert (state["epoch"], state["batches"]) == (0, 5), "what TensorFlow has pulled ahead does not count"
        with loader(how, workers=0) as third:
            rest = third.to_tf()
            third.load_state_dict(state)
            assert [plain(one) for one in rest.as_numpy_iterator()] == expected[0][5:]
            assert [plain(one) for one in rest.as_numpy_iterator()] == expected[1]
            assert rest.cardinality() == dataset.cardinality()


def test_behind_other_datasets_the_loop_tells_what_it_took() -> None:
    with loader(LOADERS["by index"], workers=1) as first:
        batches = iter(first.to_tf().map(lambda batch: batch["n"]).prefetch(2))
        next(batches)
        next(batches)
        with pytest.raises(stoker.StateError, match=r"it is unknown how many.*consumed"):
            first.state_dict()
        state = first.state_dict(consumed=2)
        with pytest.raises(stoker.OptionError, match="consumed=100, but this iteration has handed over"):
            first.state_dict(consumed=100)
    assert (state["epoch"], state["batches"]) == (0, 2)


def test_a_billion_examples_go_on_at_once() -> None:
    import time

    with stoker.Loader(range(10**9), batch_size=64, shuffle=True, workers=1) as huge:
        state = {**huge.state_dict(), "batches": 10**7}
        next(iter(huge))
        begun = time.perf_counter()
        huge.load_state_dict(state)
        batch = next(iter(huge))
        assert time.perf_counter() - begun < 1
    with stoker.Loader(range(10**9), batch_size=32, shuffle=True, workers=0) as halves:
        halves.load_state_dict({**halves.state_dict(), "batches": 2 * 10**7})
        assert batch.tolist()[:32] == next(iter(halves)).tolist()
        assert len(json.dumps(state)) < 1000


class Shorter:
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))


def test_a_source_that_has_shrunk_is_an_error() -> None:
    source = Shorter(50)
    with stoker.Loader(stoker.from_iterable(source), batch_size=4, workers=0) as numbers:
        batches = iter(numbers)
        for _ in range(5):
            next(batches)
        state = numbers.state_dict()
        source.length = 12
        numbers.load_state_dict(state)
        with pytest.raises(stoker.StokerError, match=r"ended after 12 items, but 20 had been taken"):
            list(numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: "x", "not the state of a Loader: 'x'"),
        (lambda state: {}, "not the state of a Loader"),
        (lambda state: {**state, "version": 2}, "version 2.*reads version 1.*a newer stoker"),
        (lambda state: {**state, "version": 0}, "another stoker"),
        (lambda state: {**state, "seed": 8}, "from another Loader, with other batches: seed was 8 and is 0"),
        (
            lambda state: {**state, "fingerprint": {**state["fingerprint"], "length": 7, "batch_size": 9}},
            "length was 7 and is 53; batch_size was 9 and is 6",
        ),
        (lambda state: {**state, "fingerprint": 3}, "damaged at fingerprint"),
        (lambda state: {key: state[key] for key in state if key != "epoch"}, "damaged at epoch"),
        (lambda state: {**state, "epoch": -1}, "epoch must be an int of at least 0, got -1"),
        (lambda state: {**state, "batches": 2.5}, "batches must be an int of at least 0, got 2.5"),
        (lambda state: {**state, "batches": 10}, "counts 10 batches taken, but an epoch has only 9"),
        (lambda state: {**state, "stream": []}, "damaged: stream must be"),
        (lambda state: {**state, "stream": {"base": 0}}, "damaged in the progress of its shards"),
    ],
)
def test_a_damaged_or_foreign_state_is_refused_and_changes_nothing(change: Any, message: str) -> None:
    with loader(LOADERS["by index"], workers=0) as one:
        state = one.state_dict()
        with pytest.raises(stoker.StateError, match=message):
            one.load_state_dict(change(state))
        assert next(iter(one))["n"].tolist() == [0, 1, 2, 3, 4, 5]


MARKS = {"many": stoker.Many}


def test_a_state_counts_the_batches_of_examples_that_became_several_unannounced() -> None:
    def twice(number: int) -> Any:
        return MARKS["many"]([number, number])

    with stoker.Loader(range(6), batch_size=3, transform=twice, workers=0) as loader:
        batches = iter(loader)
        for _ in range(3):
            next(batches)
        state = loader.state_dict()
        expected = [batch.tolist() for batch in batches]
    with stoker.Loader(range(6), batch_size=3, transform=twice, workers=0) as again:
        again.load_state_dict(state)
        assert [batch.tolist() for batch in again] == expected == [[4, 5, 5]]
