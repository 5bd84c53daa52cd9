"""`order=`: what it says comes, once for each time that it names an example, in every way of reading it."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.sources.map_style import MapSource
from tests.soak import tools
from tests.worker.augmentation import by_numpy

LENGTH = 60


class Numbers:
    """Each example is its index. Example 13 may raise or kill."""

    def __init__(self, what: str = "") -> None:
        self.what = what

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> np.int64:
        if index == 13 and self.what == "raises":
            raise KeyError("thirteen")
        if index == 13 and self.what == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.int64(index)


ENDLESS = MapSource(Numbers(), length=math.inf)


def growing(epoch: int, rng: np.random.Generator) -> Any:
    return rng.integers(0, LENGTH, 20 + 7 * epoch)


def pairs(epoch: int, rng: np.random.Generator) -> Iterator[Any]:
    """P×K batches: two classes of ten, three members of each."""
    for _ in range(5 + epoch):
        yield [10 * its + member for its in rng.permutation(6)[:2] for member in rng.permutation(10)[:3]]


#: Loader does not see in advance that a transform uses these.
HIDDEN: dict[str, Any] = {"SKIP": stoker.SKIP, "Many": stoker.Many}
LENGTHS = np.arange(LENGTH) * 7 % LENGTH
ORDERS: dict[str, dict[str, Any]] = {
    "a subset": {"order": np.array([5, 3, 3, 40, 5, 9, 13, 59, 0, 3, 3]), "batch_size": 4},
    "a fold, shuffled": {"order": np.arange(LENGTH) % 3 != 1, "batch_size": 8, "shuffle": True, "seed": 3},
    "a function": {"order": growing, "batch_size": 8},
    "batches": {"order": [[1, 2, 3], [1, 2], [7], [1, 2, 3], [59, 0, 7]]},
    "a function of batches": {"order": pairs},
    "weighted": {"order": stoker.weighted(np.arange(LENGTH)), "batch_size": 8},
    "balanced": {"order": stoker.balanced(np.arange(LENGTH) > 50), "batch_size": 8},
    "bucketed": {"order": stoker.bucketed(LENGTHS, [5, 20, 50], [2, 9, 6, 4])},
}


def loader(name: str, workers: int, source: Any = None, **more: Any) -> stoker.Loader:
    return stoker.Loader(Numbers() if source is None else source, **{**ORDERS[name], "workers": workers, **more})


def plain(batches: Any) -> list[Any]:
    return [np.asarray(batch).tolist() for batch in batches]


def joined(batches: list[Any]) -> list[Any]:
    return [example for batch in batches for example in batch]


def named(name: str, epoch: int) -> list[Any]:
    """What the order says for an epoch: batches, or examples to be cut."""
    how = ORDERS[name]
    order = how["order"]
    from stoker.plan.orders import user_order  # the pure part, which tests/plan compares with a reference

    given = user_order(order, length=LENGTH, seed=how.get("seed", 0), shuffle=how.get("shuffle", False)).take(epoch)
    if given.bounds is not None:
        return [part.tolist() for part in np.split(given.indices, given.bounds[1:-1])]
    size = how["batch_size"]
    return [given.indices[start : start + size].tolist() for start in range(0, len(given.indices), size)]


# ── what comes ───────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ORDERS)
def test_what_the_order_says_comes_for_any_number_of_workers(name: str) -> None:
    came, thorough = {}, name in ("a subset", "a function of batches")
    for workers in (0, 1, 2, 7) if thorough else (0, 2):
        with loader(name, workers) as its:
            came[workers] = [plain(its) for _ in range(3)]
    assert all(epochs == came[0] for epochs in came.values())
    for epoch, batches in enumerate(came[0]):
        expected = named(name, epoch)
        if name == "a fold, shuffled":
            assert sorted(joined(batches)) == sorted(joined(expected))
            assert batches != came[0][epoch - 1]
        else:
            assert batches == expected
    in_memory = stoker.from_arrays(np.arange(LENGTH))
    for workers, more in ((0, {}), (1 if thorough else 0, {"collate": "pad"})):
        with loader(name, workers, in_memory, **more) as its:
            assert [plain(its) for _ in range(3)] == came[0]


@pytest.mark.parametrize("name", ["a subset", "a function of batches"])
def test_killed_workers_change_no_batch_and_no_random_number(name: str) -> None:
    how = {"transform": by_numpy, "prefetch": 2}
    with loader(name, 0, **how) as its:
        expected = [plain(its) for _ in range(3)]
    with loader(name, 2, **how) as its:
        came = []
        for _ in range(3):
            epoch = []
            for number, batch in enumerate(its):
                epoch.append(np.asarray(batch).tolist())
                if number == 1:
                    for worker in tools.workers():
                        tools.send(worker, signal.SIGKILL)
            came.append(epoch)
        assert its.stats().deaths
    assert came == expected


def test_a_repetition_has_random_numbers_of_its_own() -> None:
    order = [[1, 2], [1, 3], [1, 2]]
    with stoker.Loader(Numbers(), order=order, transform=by_numpy, workers=2) as its:
        assert len({batch[0, 0] for batch in its}) == 3
    with stoker.Loader(Numbers(), order=range(LENGTH), transform=by_numpy, workers=0) as its:
        plainly = plain(its)
    with stoker.Loader(Numbers(), transform=by_numpy, workers=0) as its:
        assert plain(its) == plainly, "without repetitions they are those of the example"


def test_a_batch_function_gets_each_batch_even_if_two_begin_with_the_same_example() -> None:
    order = [[1, 2], [1, 3], [1, 2], [1, 9]]
    for workers in (0, 2):
        with stoker.Loader(Numbers(), order=order, collate=np.array, workers=workers) as its:
            assert [plain(its) for _ in range(2)] == [order, order]


def test_skip_and_many_leave_the_batches_of_an_order_apart() -> None:
    def even_twice(number: int) -> Any:
        return stoker.Many([number, number]) if number % 2 == 0 else stoker.SKIP

    def secretly(number: int) -> Any:
        return HIDDEN["Many"]([number, number]) if number % 2 == 0 else HIDDEN["SKIP"]

    order = [[2, 1, 4], [5], [6], [1, 3, 5], [8, 8, 8]]
    for transform, workers in ((even_twice, 0), (even_twice, 2), (secretly, 0), (secretly, 2)):
        with stoker.Loader(Numbers(), order=order, transform=transform, workers=workers) as its:
            assert plain(its) == [[2, 2, 4], [4], [6, 6], [8] * 3, [8] * 3]
        flat = [2, 1, 4, 5, 6, 1, 8]
        with stoker.Loader(Numbers(), order=flat, batch_size=3, transform=transform, workers=workers) as its:
            assert plain(its) == [[2, 2, 4], [4, 6, 6], [8, 8]]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_by_one_and_verified(workers: int) -> None:
    with loader("a function", workers, batch_size=None, verify=1.0 if workers else 0.0) as its:
        for epoch in range(2):
            assert [int(example) for example in its] == joined(named("a function", epoch))
    with stoker.Loader(Numbers(), order=[[1, 1], [2]], verify=1.0, workers=workers) as its:
        assert plain(its) == [[1, 1], [2]]


def test_the_source_of_batches_may_be_ordered_too() -> None:
    source = [np.full(number + 1, number) for number in range(4)]
    with stoker.Loader(source, order=[3, 0, 3], batched=True, workers=1) as its:
        assert plain(its) == [[3] * 4, [0], [3] * 4]


# ── errors of examples ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_example_though_it_comes_again(workers: int) -> None:
    with (
        stoker.Loader(Numbers("raises"), order=[[1, 2], [1, 13], [13, 1]], workers=workers) as its,
        pytest.raises(stoker.WorkerError, match="example 13 ") as raised,
    ):
        list(its)
    assert raised.value.example == 13
    how = {"on_error": "skip", "workers": workers}
    with stoker.Loader(Numbers("raises"), order=[[1, 2], [1, 13], [13], [13, 2]], **how) as its:
        assert plain(its) == [[1, 2], [1], [2]]
        assert {skipped.example for skipped in its.stats().skipped} == {13}


def test_an_example_that_kills_is_left_out_wherever_it_comes() -> None:
    how = {"on_error": "skip", "workers": 2, "retries": 0}
    with stoker.Loader(Numbers("kills"), order=[1, 2, 13, 4, 13, 5, 6, 13], batch_size=3, **how) as its:
        assert plain(its) == [[1, 2, 4], [5, 6]]
        assert [skipped.example for skipped in its.stats().skipped] == [13]


# ── resuming ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ORDERS)
def test_training_goes_on_in_mid_epoch(name: str) -> None:
    how, workers = {"transform": by_numpy}, 2 if "batches" in name else 0
    with loader(name, workers, **how) as its:
        epochs = [plain(its) for _ in range(3)]
    states = []
    with loader(name, 0, **how) as its:
        list(its)
        batches = iter(its)
        for _ in range(len(epochs[1]) + 1):
            states.append(json.loads(json.dumps(its.state_dict())))
            next(batches, None)
    with loader(name, workers // 2, **how) as its:
        for place in (1, len(epochs[1]) // 2, len(epochs[1])):
            its.load_state_dict(states[place])
            if place < len(epochs[1]):
                assert plain(its) == epochs[1][place:]
            assert plain(its) == epochs[2]


def test_training_goes_on_among_batches_that_skip_has_shrunk() -> None:
    def odd(number: int) -> Any:
        return stoker.SKIP if number % 2 == 0 else number

    order = [[1, 2, 3], [4], [5, 6], [7, 9, 11], [8, 1]]
    with stoker.Loader(Numbers(), order=order, transform=odd, workers=2) as its:
        batches, states = iter(its), []
        for _ in range(4):
            states.append(json.loads(json.dumps(its.state_dict())))
            next(batches)
        del batches
    with stoker.Loader(Numbers(), order=order, transform=odd, workers=0) as its:
        for place, state in enumerate(states):
            its.load_state_dict(state)
            assert plain(its) == [[1, 3], [5], [7, 9, 11], [1]][place:]


def test_a_state_of_another_order_is_refused() -> None:
    def state(name: str, **more: Any) -> Any:
        with loader(name, 0, **more) as its:
            next(iter(its))
            return its.state_dict()

    saved = state("a subset")
    for other in ({"order": ORDERS["a subset"]["order"][::-1]}, {"order": growing}, {"order": None}):
        with loader("a subset", 0, **other) as its, pytest.raises(stoker.StateError, match=r"order was 'a list \w+'"):
            its.load_state_dict(saved)
    saved = state("weighted")
    with (
        loader("weighted", 0, order=stoker.weighted(np.arange(LENGTH) + 1)) as its,
        pytest.raises(stoker.StateError, match=r"order was 'stoker.weighted \w+' and is"),
    ):
        its.load_state_dict(saved)
    saved = state("a function")
    with loader("a function", 0, order=lambda epoch, rng: [1] * 30) as its:
        its.load_state_dict(saved)
        for _ in range(2):
            with pytest.raises(stoker.StateError, match="another order for epoch 0 than when the state was saved"):
                list(its)
        its.load_state_dict({**saved, "order": None}, strict=False)
        assert len(list(its)) == 3


# ── hosts ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["a fold, shuffled", "a function", "a function of batches", "weighted", "balanced"])
def test_hosts_share_each_batch(name: str) -> None:
    with loader(name, 0, transform=by_numpy) as its:
        expected = [plain(its) for _ in range(2)]
    parts = []
    for host in range(2):
        with loader(name, 0, transform=by_numpy, shard_index=host, shard_count=2) as its:
            parts.append([plain(its) for _ in range(2)])
    for epoch in range(2):
        assert [mine + its for mine, its in zip(parts[0][epoch], parts[1][epoch], strict=True)] == expected[epoch]


def test_the_last_batch_of_a_list_is_filled_up() -> None:
    source = [(np.float32(number), number) for number in range(LENGTH)]
    came: list[int] = []
    for host in range(2):
        how = {"batch_size": 4, "pad_remainder": True, "shard_index": host, "shard_count": 2, "workers": 0}
        with stoker.Loader(source, order=[7, 7, 3, 9, 5], **how) as its:
            for _, y, weight in its:
                assert len(y) == 2
                came += y[weight == 1].tolist()
    assert sorted(came) == [3, 5, 7, 7, 9]


def test_a_batch_that_is_too_small_for_the_hosts_is_refused() -> None:
    with pytest.raises(stoker.OptionError, match="a batch of 1 examples, too few for 2 trainers"):
        loader("batches", 0, shard_count=2)
    with loader("a function", 0, order=lambda epoch, rng: [1] * (8 + epoch), shard_count=4) as its:
        assert len(list(its)) == 1
        with pytest.raises(stoker.SourceError, match="for epoch 1: a batch has 1 example, too few for 4 trainers"):
            list(its)


def test_whole_batches_are_not_cut_up_for_replicas() -> None:
    import tensorflow as tf

    two = tf.distribute.InputContext(num_input_pipelines=1, input_pipeline_id=0, num_replicas_in_sync=2)
    with loader("batches", 0) as its, pytest.raises(stoker.OptionError, match="cannot be cut up for 2 replicas of 1"):
        its.to_tf_shard(two)
    both = [
        tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=n, num_replicas_in_sync=2) for n in (0, 1)
    ]
    with loader("a function of batches", 0) as its:
        shares = [[batch.numpy().tolist() for batch in its.to_tf_shard(context)] for context in both]
    for share, epoch in zip(shares, (0, 1), strict=True):
        assert share == [batch[3 * epoch : 3 * epoch + 3] for batch in named("a function of batches", epoch)]


# ── the number of batches ────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ORDERS)
def test_the_number_of_batches_is_known_where_it_cannot_change(name: str) -> None:
    import tensorflow as tf

    with loader(name, 0) as its:
        dataset, varies = its.to_tf(), callable(ORDERS[name]["order"]) and "function" in name
        assert dataset.cardinality() == (tf.data.UNKNOWN_CARDINALITY if varies else len(its))
        for epoch in range(2):
            assert len(its) == len(named(name, epoch)), "that of the next epoch"
            assert len([batch.numpy() for batch in dataset]) == len(named(name, epoch))


def test_the_length_is_that_of_the_epoch_that_is_read_and_else_of_the_next() -> None:
    called = []

    def order(epoch: int, rng: np.random.Generator) -> Any:
        called.append(epoch)
        return range(4 + 4 * epoch)

    with stoker.Loader(Numbers(), order=order, batch_size=4, workers=0) as its:
        assert (len(its), called) == (1, [0])
        assert [len(its) for _ in its] == [1]
        assert [len(its) for _ in its] == [2, 2]
        assert called == [0, 1]
        assert len(its) == 3
        assert len(list(its)) == 3
        assert called == [0, 1, 2], "once for each epoch"
        for _ in its:
            break
        assert len(its) == 5, "that iteration is abandoned"
    assert [batch.shape for batch in stoker.Loader(Numbers(), order=[[1, 2]], workers=0).to_tf()] == [(2,)]


def test_fit_takes_every_batch_of_epochs_that_grow() -> None:
    import keras

    source = [(np.float32([number]), np.float32(1)) for number in range(LENGTH)]
    steps: list[int] = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: steps.append(0))
    count.on_train_batch_end = lambda *_, **__: steps.append(steps.pop() + 1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    how = {"order": lambda epoch, rng: range(10 + 20 * epoch), "batch_size": 5, "workers": 1}
    with stoker.Loader(source, **how) as its, pytest.warns(UserWarning, match="ran out of data"):
        model.fit(its.to_tf(), epochs=3, callbacks=[count], verbose=0)
    assert steps == [2, 6, 10]


# ── the user's function ──────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_function_comes_once_and_names_the_epoch(workers: int) -> None:
    def order(epoch: int, rng: np.random.Generator) -> Any:
        return {0: [1], 2: [2], 3: [LENGTH]}[epoch]

    with stoker.Loader(Numbers(), order=order, workers=workers) as its:
        assert plain(its) == [[1]]
        batches = iter(its)
        with pytest.raises(stoker.SourceError, match="order= raised KeyError: 1 for epoch 1\n") as raised:
            next(batches)
        assert isinstance(raised.value.__cause__, KeyError)
        assert f'"{__file__}"' in str(raised.value)
        assert list(batches) == []
        assert plain(its) == [[2]], "the Loader goes on with the next epoch"
        with pytest.raises(stoker.SourceError, match=f"for epoch 3: position 0 holds {LENGTH}, but the source"):
            list(its)
        assert isinstance(its.last_error, stoker.SourceError)


def test_the_function_may_use_the_loader() -> None:
    """It is called without the Loader's lock."""

    def order(epoch: int, rng: np.random.Generator) -> Any:
        return [its.stats().skips + 1] if epoch else [0]

    with stoker.Loader(Numbers(), order=order, workers=1) as its:
        assert [plain(its), plain(its)] == [[[0]], [[1]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": stoker.from_iterable([1]), "order": [0]}, "order= needs a source with an index"),
        ({"order": [[1]], "batch_size": None}, "so batch_size=None does not apply"),
        ({"order": [[1, 2]], "batch_size": 1}, "batch 0 has 2 indices, more than 1"),
        ({"order": [[1]], "drop_remainder": True}, "so drop_remainder does not apply"),
        ({"order": [[1]], "pad_remainder": True}, "so pad_remainder does not apply"),
        ({"order": [[1]], "batched": True}, "but so does the source: give single indices"),
        ({"order": [1], "drop_remainder": True}, "leaves no batch of 1 examples"),
        ({"order": growing, "pad_remainder": True}, "pad_remainder needs to know the last batch in advance"),
        ({"order": growing, "shuffle": True}, "order= is a function, so shuffle=True does not apply"),
        ({"order": stoker.weighted([1, 2])}, "made for 2 examples, but the source has 60"),
        ({"order": stoker.weighted}, r"got the function stoker.weighted itself. Call it: `order=stoker.weighted\(weig"),
        ({"order": stoker.balanced}, r"Call it: `order=stoker.balanced\(labels\)`"),
        ({"order": stoker.bucketed}, r"Call it: `order=stoker.bucketed\(lengths, boundaries\)`"),
        ({"source": ENDLESS, "order": [True, False]}, "a mask needs a bool for each .* never ends. Pass indices"),
        ({"source": ENDLESS, "order": [2, -1]}, "position 1 holds -1, but the source, which never ends, has the"),
        ({"source": ENDLESS, "order": [2, 2]}, "more than once, which a source that never ends does not allow"),
        ({"source": ENDLESS, "order": stoker.weighted([1])}, "made for 1 examples, but the source never ends. Pass"),
    ],
)
def test_options_that_do_not_go_with_an_order_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(stoker.OptionError, match=message):
        stoker.Loader(**{"source": Numbers(), "workers": 0, **options})


# ── samplers ─────────────────────────────────────────────────────────────────────────────────
class Global:
    """A sampler of one's own, which draws from the global states; it has no `__len__`."""

    def __iter__(self) -> Iterator[int]:
        yield from random.sample(range(LENGTH), 5)
        yield from np.random.permutation(LENGTH)[:5].tolist()


def samplers() -> dict[str, Any]:
    from torch import Generator
    from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, WeightedRandomSampler

    generator = Generator()
    random_one = RandomSampler(range(LENGTH), generator=generator)
    return {
        "random": RandomSampler(range(LENGTH)),
        "with a generator": random_one,
        "weighted": WeightedRandomSampler(np.arange(LENGTH).tolist(), 20),
        "in batches": BatchSampler(random_one, 7, drop_last=False),
        "by epoch": BatchSampler(DistributedSampler(range(LENGTH), 2, 1), 7, drop_last=True),
        "of one's own": Global(),
    }


#: The names of `samplers`, which imports PyTorch: no worker of the other tests needs that.
SAMPLERS = "random", "with a generator", "weighted", "in batches", "by epoch", "of one's own"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_gives_the_same_epochs_in_each_run_and_leaves_the_users_random_states(name: str) -> None:
    import tensorflow  # noqa: F401  # now: its import draws from `random`
    import torch

    came = []
    for workers in (0, 1 if name == "in batches" else 0):
        sampler = samplers()[name]
        torch.manual_seed(len(came))
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        with stoker.Loader(Numbers(), order=sampler, workers=workers) as its:
            if hasattr(sampler, "__len__"):
                assert its.to_tf().cardinality() == len(its)
            came.append([plain(its) for _ in range(3)])
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    assert came[0] == came[1]
    assert came[0][0] != came[0][1], "drawn anew in each epoch"
    if name == "by epoch":
        sampler.sampler.set_epoch(2)
        assert came[0][2] == list(sampler)


def test_a_sampler_that_breaks_its_word_is_an_error() -> None:
    class Shrinking:
        epochs = 0

        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[int]:
            self.epochs += 1
            return iter(range(5 - self.epochs))

    with stoker.Loader(Numbers(), order=Shrinking(), workers=0) as its:
        assert plain(its) == [[0, 1, 2, 3]]
        with pytest.raises(stoker.SourceError, match=r"for epoch 1: it gave 3 indices, but its len\(\) was 4"):
            list(its)


class Counting:
    """Counts its epochs itself, and shuffles by that number."""

    def __init__(self) -> None:
        self.data_source, self.epoch = Numbers(), 0

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng(self.epoch).permutation(LENGTH)[:8].tolist()
        self.epoch += 1


class InPlace:
    """Shuffles the list that it shuffled for the epoch before, by batches."""

    def __init__(self) -> None:
        self.numbers = list(range(LENGTH))

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.numbers)
        yield from ([*self.numbers[start : start + 4]] for start in (0, 4))


class Continuing:
    """Goes on in one stream of indices, so that it cannot be copied."""

    def __init__(self) -> None:
        self.stream = ((7 * number) % LENGTH for number in itertools.count())

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self.stream, 9)


class Pool(list[int]):
    pass


class OfItsOwn(InPlace):
    """Its list is of a class of the user's."""

    def __init__(self) -> None:
        self.numbers = Pool(range(LENGTH))


@pytest.mark.parametrize("make", [Counting, InPlace, OfItsOwn, Continuing, Global])
def test_a_sampler_with_a_state_of_its_own_goes_on_as_in_a_run_that_was_not_stopped(make: Callable[[], Any]) -> None:
    how: dict[str, Any] = {"workers": 0, "batch_size": 4}
    with stoker.Loader(Numbers(), order=make(), **how) as its:
        epochs = [plain(its) for _ in range(4)]
        assert len({str(epoch) for epoch in epochs}) == 4
    for epoch, taken in ((0, 1), (1, 0), (3, 0), (3, 1)):
        with stoker.Loader(Numbers(), order=make(), **how) as its:
            for _ in range(epoch):
                list(its)
            assert plain(itertools.islice(its, taken)) == epochs[epoch][:taken]
            state = json.loads(json.dumps(its.state_dict()))
            its.load_state_dict(state)
            assert plain(its) == epochs[epoch][taken:], "it goes back within the epoch"
        with stoker.Loader(Numbers(), order=make(), **how) as its:
            its.to_tf()  # looks at epoch 0
            its.load_state_dict(state)
            assert plain(its) == epochs[epoch][taken:]


@pytest.mark.parametrize("make", [Counting, InPlace, Continuing])
def test_a_sampler_with_a_state_of_its_own_does_not_go_back_to_epochs_that_are_over(make: Callable[[], Any]) -> None:
    with stoker.Loader(Numbers(), order=make(), workers=0, batch_size=4) as its:
        first = its.state_dict()
        for _ in range(4):
            list(its)
        its.load_state_dict(first)
        with pytest.raises(stoker.SourceError, match=f"a {make.__name__} has been iterated for epoch 3 already, and"):
            list(its)
    with stoker.Loader(Numbers(), order=Global(), workers=0, batch_size=4) as its:
        epochs = [plain(its) for _ in range(4)]
        its.load_state_dict(its.state_dict() | {"epoch": 0})
        assert plain(its) == epochs[0], "one without a state does"


def test_a_sampler_that_gives_a_part_for_each_trainer_is_refused_beside_shard_count() -> None:
    from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

    sampler, how = DistributedSampler(range(LENGTH), 4, 1), {"shard_count": 2, "workers": 0}
    message = r"has a DistributedSampler with num_replicas=4, .*shard_count=2 would divide that part once more\. Use"
    for given in (sampler, BatchSampler(sampler, 4, drop_last=True)):
        with pytest.raises(stoker.OptionError, match=f"^order= {message}"):
            stoker.Loader(Numbers(), order=given, **how)
    with pytest.raises(stoker.OptionError, match=f"^the sampler of the DataLoader {message}"):
        stoker.Loader(DataLoader(Numbers(), 4, sampler=sampler), **how)
    alone = DistributedSampler(range(LENGTH), 1, 0)
    with stoker.Loader(Numbers(), order=alone, batch_size=4, **how) as its:
        assert len(its) == LENGTH // 4
    with stoker.Loader(Numbers(), order=sampler, batch_size=4, workers=0) as its:
        assert sum(map(len, its)) == LENGTH // 4


def test_a_sampler_needs_no_torch() -> None:
    script = (
        "import sys, stoker\n"
        "from tests.test_order import Global, Numbers\n"
        "with stoker.Loader(Numbers(), order=Global(), workers=0) as its: print(sum(map(len, its)))\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout == "10\n", result.stderr
