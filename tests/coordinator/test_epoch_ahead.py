"""The first batches of the next epoch are made before it begins, and what comes does not show it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

import stoker
from stoker.coordinator.counters import Counters
from stoker.engines.engine import WorkerDeath
from stoker.errors import SourceError, WorkerError
from stoker.feed.batch_iterator import BatchIterator
from stoker.memory.progress_page import Activity, Phase
from stoker.plan.drawn_orders import BucketedOrder
from stoker.plan.host_shard import HostShard
from stoker.protocol.replies import FailureKind, FailureReply
from stoker.stats import Skipped
from tests.coordinator.fake_engine import EXPECTED, LENGTH, SIZE, FakeEngine

BATCHES = LENGTH // SIZE
MakeEngine = Callable[..., FakeEngine]


def iterate(engine: FakeEngine, **wanted: Any) -> BatchIterator:
    return BatchIterator(engine.producer, engine, **wanted)


def numbers(batches: BatchIterator, count: int | None = None) -> list[list[int]]:
    return [leaves.tolist() for leaves in islice(batches, count)]


def work(engine: FakeEngine) -> set[int]:
    """Let the workers do all that they are asked. Returns the epochs of what they have done since the last call."""
    engine.work(0, 1)
    done, engine.wrote = set(engine.wrote), []
    return done


def is_ahead(engine: FakeEngine) -> bool:
    return engine.producer._ahead.stream is not None


# ── when ─────────────────────────────────────────────────────────────────────────────────────
def test_the_next_epoch_is_begun_with_the_last_batch_of_the_one_before(engine: FakeEngine) -> None:
    assert numbers(iterate(engine)) == EXPECTED
    assert work(engine) == {0, 1}
    again = iterate(engine)
    assert numbers(again) == EXPECTED
    assert again.iteration.begin.epoch == 1
    assert work(engine) == {2}, "no batch of epoch 1 was left to be made"


def test_workers_go_on_while_no_one_pulls_and_use_the_slots_that_there_are(make_engine: MakeEngine) -> None:
    engine = make_engine(range(20 * SIZE), prefetch=3)
    assert len(numbers(iterate(engine))) == 20
    assert work(engine) == {0, 1}
    assert engine.producer._scheduler.slots_in_use() == 3


@pytest.mark.parametrize("taken", [1, 15])
def test_an_epoch_that_is_left_before_its_last_batch_makes_nothing_ahead(taken: int, make_engine: MakeEngine) -> None:
    engine = make_engine(range(20 * SIZE), prefetch=3)
    batches = iterate(engine)
    numbers(batches, taken)
    batches.close()
    assert work(engine) == {0}
    numbers(iterate(engine), 1)
    assert work(engine) == {1}


def test_while_two_iterations_are_read_nothing_is_made_ahead_of_either(make_engine: MakeEngine) -> None:
    engine = make_engine(range(20 * SIZE), prefetch=2)
    one, other = iterate(engine), iterate(engine)
    came = numbers(one, 1), numbers(other, 1)
    came[0].extend(numbers(one))
    assert work(engine) == {0, 1}
    came[1].extend(numbers(other))
    assert work(engine) == {1, 2}
    assert came[0] == came[1] == numbers(iterate(engine))


class Numbers:
    """Numbers, and an attribute for `update`."""

    level = 1

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        return index


class Turning(Numbers):
    def on_epoch_end(self) -> None:
        """That it is there says that the source may change."""


class Sampler:
    def __iter__(self) -> Any:
        return iter(range(LENGTH))


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (range(LENGTH), {"ahead": False}),
        (range(LENGTH), {"prefetch": 1}),
        (range(LENGTH), {"order": lambda epoch, rng: range(LENGTH)}),
        (range(LENGTH), {"order": Sampler()}),
        (Turning(), {}),
    ],
    ids=["ahead=False", "prefetch=1", "an order function", "a sampler", "on_epoch_end"],
)
def test_nothing_is_made_ahead_of_what_may_change_at_the_turn(
    source: Any, options: dict[str, Any], make_engine: MakeEngine
) -> None:
    engine = make_engine(source, **options)
    for epoch in range(2):
        assert numbers(iterate(engine)) == EXPECTED
        assert work(engine) == {epoch}


def test_a_source_may_say_that_it_changes_and_an_iterable_is_opened_by_its_own_iteration_only(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not stoker.from_iterable([1]).repeatable
    monkeypatch.setattr("stoker.sources.map_style.MapSource.repeatable", False)
    engine = make_engine(range(LENGTH))
    numbers(iterate(engine))
    assert work(engine) == {0}


@pytest.mark.parametrize("ahead", [None, "yes", 2])
def test_ahead_is_true_or_false(ahead: Any) -> None:
    with pytest.raises(stoker.OptionError, match=f"ahead must be True or False, got {ahead!r}"):
        stoker.Loader([1], ahead=ahead, workers=0)


ORDERS = {
    "array": np.arange(LENGTH)[::-1],
    "weighted": stoker.weighted(np.arange(LENGTH)),
    "balanced": stoker.balanced([n % 2 for n in range(LENGTH)]),
    "bucketed": stoker.bucketed(range(LENGTH), [8], SIZE),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_that_depends_on_the_epoch_alone_is_drawn_ahead_once(
    kind: str, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: Any = ORDERS[kind]
    drawn: list[int] = []
    if kind != "array":
        draw = type(order).__call__
        monkeypatch.setattr(
            type(order), "__call__", lambda self, epoch, rng: (drawn.append(epoch), draw(self, epoch, rng))[1]
        )
    options = {"order": order, "batch_size": stoker.loader.BATCH_SIZE if isinstance(order, BucketedOrder) else SIZE}
    came = []
    for ahead in (True, False):
        engine = make_engine(range(LENGTH), ahead=ahead, **options)
        came.append([numbers(iterate(engine)) for _ in range(3)])
        assert is_ahead(engine) is ahead
        assert drawn == ([] if kind == "array" else [*range(3 + ahead)]), "each epoch's once"
        drawn.clear()
    assert came[0] == came[1]


# ── what begins next ─────────────────────────────────────────────────────────────────────────
def test_another_position_closes_it(engine: FakeEngine) -> None:
    start = engine.producer.state()
    for _ in range(2):
        numbers(iterate(engine))
    assert is_ahead(engine)
    engine.producer.load_state(start, strict=True)
    assert not is_ahead(engine)
    work(engine)
    assert engine.producer._scheduler.slots_in_use() == 0
    again = iterate(engine)
    assert (numbers(again), again.iteration.begin.epoch) == (EXPECTED, 0)


def test_the_same_position_keeps_it(engine: FakeEngine) -> None:
    numbers(iterate(engine))
    work(engine)
    engine.producer.load_state(engine.producer.state(), strict=True)
    assert numbers(iterate(engine), BATCHES) == EXPECTED
    assert work(engine) <= {2}


def test_a_consumer_that_wants_other_rows_closes_it(engine: FakeEngine) -> None:
    numbers(iterate(engine))
    work(engine)
    other = iterate(engine, host_shard=HostShard(1, 2))
    assert numbers(other) == [batch[2:] for batch in EXPECTED]
    again = iterate(engine)
    assert numbers(again) == EXPECTED
    assert (other.iteration.begin.epoch, again.iteration.begin.epoch) == (1, 2)


def test_an_update_closes_it_and_none_is_made_again(make_engine: MakeEngine) -> None:
    engine = make_engine(Numbers())
    numbers(iterate(engine))
    assert work(engine) == {0, 1}
    engine.producer.update({"level": 2})
    assert engine.producer._scheduler.slots_in_use() == 0
    assert numbers(iterate(engine)) == EXPECTED
    assert work(engine) == {1}


def test_an_iteration_whose_first_pull_was_interrupted_stays_in_its_epoch(engine: FakeEngine) -> None:
    batches = iterate(engine)
    first = numbers(batches, 1)
    assert is_ahead(engine)
    batches._begun = False  # as if another thread had pulled meanwhile
    assert first + numbers(batches) == EXPECTED
    assert batches.iteration.begin.epoch == 0


def test_an_iterator_that_is_made_and_never_read_does_not_matter(engine: FakeEngine) -> None:
    for epoch in range(3):
        batches, unread = iterate(engine), iterate(engine)
        assert numbers(batches) == EXPECTED
        assert batches.iteration.begin.epoch == epoch
        unread.close()
        assert is_ahead(engine)


def test_an_iteration_that_only_looked_is_continued_and_the_epoch_after_it_is_made_ahead(engine: FakeEngine) -> None:
    batches = iterate(engine)
    first = numbers(batches, 1)
    with engine.producer.consumption() as consumption:
        consumption.put_back(batches.iteration)
        assert consumption.take_up(batches.iteration)
    assert first + numbers(batches) == EXPECTED
    work(engine)
    assert numbers(iterate(engine), BATCHES) == EXPECTED
    assert work(engine) <= {2}


def test_an_iteration_that_only_looked_and_begins_again_is_the_same_epoch(engine: FakeEngine) -> None:
    looked = iterate(engine)
    numbers(looked, 1)
    with engine.producer.consumption() as consumption:
        consumption.put_back(looked.iteration)
    looked.close()
    again = iterate(engine)
    assert (numbers(again), again.iteration.begin.epoch) == (EXPECTED, 0)


def test_the_state_is_the_same_at_every_batch_around_the_turn(make_engine: MakeEngine) -> None:
    states = []
    for ahead in (True, False):
        producer = (engine := make_engine(range(LENGTH), ahead=ahead)).producer
        states.append([producer.state()])
        for _ in range(2):
            for _ in iterate(engine):
                states[-1].append(producer.state())
            assert states[-1][-1] == producer.state()
    assert states[0] == states[1]
    assert [(state["epoch"], state["batches"]) for state in states[0]][3:6] == [(0, 3), (1, 0), (1, 1)]


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────
def test_an_error_in_a_batch_made_ahead_is_raised_in_its_turn(engine: FakeEngine) -> None:
    def failing() -> Any:
        engine.join(0)
        engine.join(1)
        while True:
            yield "both are up"
            for worker in (0, 1):
                while engine.has(worker):
                    request = next(request for asked, request in engine.asked if asked == worker)
                    if request.epoch == 1 and 5 in request.indices:
                        engine.take(worker)
                        told = FailureReply(request.task, FailureKind.USER, "ValueError: five", example=5)
                        engine.listener.heard(worker, [told])
                    else:
                        engine.write(worker)

    engine.script = failing()
    assert numbers(iterate(engine)) == EXPECTED
    next(engine.script)
    batches = iterate(engine)
    assert numbers(batches, 1) == EXPECTED[:1]
    with pytest.raises(WorkerError, match=r"example 5 \(epoch 1, batch 1, worker \d\) raised ValueError: five"):
        next(batches)
    assert numbers(iterate(engine)) == EXPECTED


def test_an_order_that_cannot_be_drawn_is_an_error_in_its_turn(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(range(LENGTH), order=(order := stoker.weighted(np.ones(LENGTH))))
    monkeypatch.setattr(type(order), "__call__", lambda self, epoch, rng: 1 / 0)
    assert sum(map(len, numbers(iterate(engine)))) == LENGTH
    assert not is_ahead(engine)
    with pytest.raises(SourceError, match="ZeroDivisionError"):
        next(iterate(engine))


def test_what_happens_in_batches_made_ahead_is_counted_when_their_epoch_begins() -> None:
    counters, later = Counters(), list[Any]()
    death = WorkerDeath(0, -9, Activity(None, None, None, Phase.IDLE))
    for epoch in (1, 2):
        counters.made_ahead(epoch)
        counters.died(death, epoch)
        counters.skipped([Skipped(epoch, None, 7, "odd")], 1)
    counters.died(death, 0)
    counters.died(death, None)
    assert (counters.stats().deaths, counters.stats().skips) == (2, 0)
    counters.begun(1)
    assert (counters.stats().deaths, [one.epoch for one in counters.stats().skipped]) == (3, [1])
    counters.given_up(2)
    assert (counters.stats().deaths, counters.stats().skips) == (4, 1), "a death remains one"
    for epoch in (1, 2):
        counters.epoch_ended(epoch, lambda *said: later.append(said[2]))
    assert [message.partition(":")[0] for message in later] == ["epoch 1"]
