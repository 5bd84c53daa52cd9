"""Random programs of pulls, closings, deaths, delays and exceptions, against real processes."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st

import stoker
from stoker.scheduler.worker_starts import STARTS_PROVEN
from tests.soak.code import KINDS, Work, source
from tests.soak.tools import MANY, Epoch, hit, plain, read

#: Iterations that a program has at once.
AT_ONCE = 3
#: Deaths in a program: one fewer than the starts in a row that may fail before a Loader gives up.
MOST_KILLS = STARTS_PROVEN - 1


@dataclass(frozen=True)
class Begin:
    """Begin an iteration in this place; one that is there is dropped."""

    place: int


@dataclass(frozen=True)
class Pull:
    """Pull so many batches of the iteration in this place."""

    place: int
    count: int


@dataclass(frozen=True)
class Close:
    place: int


@dataclass(frozen=True)
class Kill:
    worker: int


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Setting:
    """A Loader, without the faults that do not change what it delivers."""

    kind: str
    length: int
    batch_size: int
    shuffle: bool
    seed: int
    bad: frozenset[int]
    on_error: str

    def loader(self, work: Work, **options: Any) -> stoker.Loader:
        shuffle: Any = self.shuffle if self.kind in ("map", "arrays") else 7 * self.shuffle
        return stoker.Loader(
            source(self.kind, self.length),
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            transform=work,
            on_error=self.on_error,  # type: ignore[arg-type]  # a Literal, drawn
            retries=MANY,
            **options,
        )

    def left_out(self, loader: stoker.Loader, epoch: int) -> list[tuple[int | None, int]]:
        return sorted((one.shard or 0, one.example) for one in loader.stats().skipped if one.epoch == epoch)


@functools.lru_cache(maxsize=64)
def undisturbed(setting: Setting, epochs: int) -> list[tuple[Epoch, list[tuple[int | None, int]]]]:
    """What each epoch is, and what is left out of it, in one process without faults."""
    with setting.loader(Work(bad=setting.bad), workers=0) as loader:
        return [(read(loader), setting.left_out(loader, epoch)) for epoch in range(epochs)]


places = st.integers(0, AT_ONCE - 1)
steps = st.one_of(
    st.builds(Begin, places),
    st.builds(Pull, places, st.integers(1, 9)),
    st.builds(Pull, places, st.integers(1, 9)),
    st.builds(Close, places),
    st.builds(Kill, st.integers(0, 2)),
    st.builds(Kill, st.integers(0, 2)),
    st.builds(Wait, st.sampled_from([0.001, 0.02, 0.1])),
)
small = st.integers(0, 79)


@st.composite
def choices(draw: st.DrawFn) -> Setting:
    return Setting(
        kind=draw(st.sampled_from(KINDS)),
        length=draw(st.integers(1, 80)),
        batch_size=draw(st.sampled_from([1, 3, 8, 100])),
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
        bad=draw(st.one_of(st.just(frozenset[int]()), st.frozensets(small.filter(bool), max_size=3))),
        on_error=draw(st.sampled_from(["raise", "skip"])),
    )


class Machine:
    """Runs a program on a Loader, and holds what comes against what must come."""

    def __init__(self, loader: stoker.Loader, setting: Setting) -> None:
        self.loader, self.setting = loader, setting
        self.running: dict[int, Any] = {}
        self.epochs: dict[int, int] = {}  # which one the iteration in a place is, from its first pull on
        self.pulled: dict[int, list[Any]] = {}
        self.begun = 0
        self.kills = 0

    def do(self, step: Any) -> None:
        match step:
            case Begin(place):
                self.running[place] = iter(self.loader)
                self.epochs.pop(place, None)
                self.pulled[place] = []
            case Pull(place, count):
                self.pull(place, count)
            case Close(place):
                if place in self.running:
                    self.running.pop(place).close()
            case Kill(worker):
                if self.kills < MOST_KILLS:
                    self.kills += hit(worker) is not None
            case Wait(seconds):
                time.sleep(seconds)

    def pull(self, place: int, count: int) -> None:
        """Pull so many batches; every one of them, and an end, is what it must be."""
        if place not in self.running:
            return
        if place not in self.epochs:
            self.epochs[place] = self.begun
            self.begun += 1
        epoch = self.epochs[place]
        expected, left_out = undisturbed(self.setting, epoch + 1)[epoch]
        pulled = self.pulled[place]
        end: StopIteration | stoker.WorkerError | None = None
        try:
            for _ in range(count):
                pulled.append(plain(next(self.running[place])))
        except (StopIteration, stoker.WorkerError) as error:
            end = error
        assert pulled == expected.batches[: len(pulled)]
        if end is None:
            return
        assert len(pulled) == len(expected.batches)
        if isinstance(end, stoker.WorkerError):
            assert (end.example, end.epoch) == (expected.error, epoch), end
            assert "is bad" in str(end)
        else:
            assert expected.error is None
        assert self.setting.left_out(self.loader, epoch) == left_out
        del self.running[place]
        event("an epoch ended with an error" if expected.error is not None else "an epoch ended")


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes: each example starts processes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    setting=choices(),
    delays=st.dictionaries(small, st.sampled_from([0.0, 0.01, 0.1]), max_size=4),
    workers=st.integers(1, 3),
    prefetch=st.sampled_from([None, 1, 2]),
    program=st.lists(steps, min_size=3, max_size=12),
)
def test_whatever_happens_each_epoch_is_the_undisturbed_one(
    setting: Setting, delays: dict[int, float], workers: int, prefetch: int | None, program: list[Any]
) -> None:
    (first, _), *_ = undisturbed(setting, 1)
    assume(first.batches or first.error is None)  # see the test below
    work = Work(delays=delays, bad=setting.bad, pace=0.002)
    with setting.loader(work, workers=workers, prefetch=prefetch) as loader:
        machine = Machine(loader, setting)
        for step in [Begin(0), Pull(0, 1), *program]:
            machine.do(step)
        for place in list(machine.running):
            machine.pull(place, 1000)
        machine.do(Begin(0))
        machine.pull(0, 1000)
        assert not machine.running
        assert loader.stats().deaths <= machine.kills
        event(f"{loader.stats().deaths} deaths")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_whose_very_first_example_raises_begins_again(workers: int) -> None:
    """No form of a batch is known then, so nothing of that epoch was there."""
    with stoker.Loader([0, 1, 2], transform=lambda n: 6 // n, batch_size=1, workers=workers) as loader:
        for _ in range(2):
            with pytest.raises(stoker.WorkerError, match="ZeroDivisionError") as caught:
                next(iter(loader))
            assert (caught.value.example, caught.value.epoch) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_undisturbed_epochs_have_each_example_once(kind: str) -> None:
    """The yardstick itself is measured, against plain Python."""
    for shuffle in False, True:
        setting = Setting(kind, 50, 8, shuffle, 3, frozenset({7, 20}), "skip")
        (epoch, left_out), (other, _) = undisturbed(setting, 2)
        numbers = [number for batch in epoch.batches for number, _ in batch]
        assert sorted(numbers) == [number for number in range(50) if number not in (7, 20)]
        assert len(left_out) == 2
        assert epoch.batches != other.batches, "other noise, at least"
        assert [len(batch) for batch in epoch.batches] == [8] * 6
        if not shuffle and kind != "generator":
            assert numbers == sorted(numbers)
