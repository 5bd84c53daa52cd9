"""Shards of any sizes, under any interleaving, give one sequence of batches: that of the model below."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.scheduler.bisection import TIMES
from stoker.scheduler.commands import KilledReason, WrongLengthReason
from stoker.scheduler.machine import RETRIES
from stoker.scheduler.shard_streams import ShardStream
from stoker.scheduler.work import JoinWork, ShardWork
from tests.scheduler.world import KILLED, Expected, Row, World, dice


@dataclass(frozen=True)
class Sharded:
    """Shards with so many rows each; with `slack`, parts of an iterable whose last one lacks so many items."""

    sizes: list[int]
    size: int = 3
    open_shards: int = 2
    in_turn: bool = True
    keep_rest: bool = True
    slack: int | None = None
    length: float | None = None
    raws: int = 1
    bad: frozenset[Row] = frozenset()
    misfits: frozenset[Row] = frozenset()
    kills: frozenset[Row] = frozenset()
    skips: bool = False  # whether those are left out

    @property
    def items(self) -> int | None:
        return None if self.slack is None else max(0, len(self.sizes) * self.size - self.slack)

    @property
    def order(self) -> list[int]:
        """Not that of the numbers; the parts of an iterable come as they come."""
        return list(range(len(self.sizes)))[:: -1 if self.items is None else 1]

    @property
    def expected(self) -> Expected:
        return expected(self)

    def shard(self, index: int) -> list[Row]:
        return [(index, position) for position in range(self.sizes[index])]

    def deadly(self, rows: list[Row]) -> Row | None:
        return next((row for row in rows if row in self.kills), None)

    def stream(self, number: int) -> ShardStream:
        return ShardStream(
            number,
            None if self.items is not None else self.order,
            self.size,
            open_shards=self.open_shards,
            keep_rest=self.keep_rest,
            in_turn=self.in_turn,
            length=self.length,
        )


# ── the model: what is delivered, whoever makes it ───────────────────────────────────────────
def turns(shards: list[list[Row]], size: int, open_shards: int) -> Iterator[list[Row]]:
    """Each open shard gives a batch in turn; the next shard takes the place, and the turn, of one that ends."""
    places, turn = [shards.pop(0) for _ in shards[:open_shards]], 0
    while places:
        rows, places[turn] = places[turn][:size], places[turn][size:]
        yield rows
        if len(rows) < size:
            places[turn : turn + 1] = [shards.pop(0)] if shards else []
        else:
            turn += 1
        turn %= len(places) or 1


def expected(of: Sharded) -> Expected:
    batches: list[list[Row]] = []
    rest: list[Row] = []
    raw, length, shards = 0, math.inf if of.length is None else of.length, [of.shard(shard) for shard in of.order]
    shards = [[row for row in shard if row not in of.kills - of.bad] for shard in shards] if of.skips else shards
    for rows in turns(shards, of.size, of.open_shards if of.in_turn else 1):
        if wrong := [row for row in rows if row in of.bad | of.kills]:
            return Expected(batches, wrong[0] if wrong[0] in of.bad else KilledReason(None, KILLED))
        raw += len(rows) * of.raws
        if raw > length:
            return Expected(batches, WrongLengthReason(length, raw, ended=False))
        joined = len(rows) < of.size or not of.in_turn
        rest += rows if joined else []
        batches += [] if joined else [rows]
        if len(rest) >= of.size:
            batches, rest = [*batches, rest[: of.size]], rest[of.size :]
            if wrong := [row for row in batches[-1] if row in of.misfits]:
                return Expected(batches[:-1], wrong[0])
    if of.length is not None and raw != length:
        return Expected(batches, WrongLengthReason(length, raw, ended=True))
    wrong = [row for row in rest if row in of.misfits and of.keep_rest]
    return Expected(batches + [rest] * bool(rest and of.keep_rest and not wrong), wrong[0] if wrong else None)


# ── the scheduler, held to it ────────────────────────────────────────────────────────────────
small = st.integers(0, 12).flatmap(lambda n: st.lists(st.integers(0, 9), min_size=n, max_size=n))
#: All shards empty, one shard, 500 shards, shards shorter than a batch, …
shapes = st.builds(
    lambda many, sizes: (sizes * 500)[:500] if many else sizes,
    st.integers(0, 99).map(lambda chance: chance == 57),
    small | st.lists(st.integers(0, 2), max_size=30) | st.lists(st.integers(0, 40), max_size=3),
)


any_sizes = given(shapes, st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6))


@settings(max_examples=2_000, deadline=None)
@any_sizes
def test_shards_of_any_sizes_give_each_row_once_in_full_batches_and_one_order(
    sizes: list[int], size: int, open_shards: int, slots: int, luck: int
) -> None:
    hold(sizes, size, open_shards, slots, luck)


@pytest.mark.stress
@settings(max_examples=10_000, deadline=None)
@any_sizes
def test_the_same_for_many_more_sizes(sizes: list[int], size: int, open_shards: int, slots: int, luck: int) -> None:
    hold(sizes, size, open_shards, slots, luck)


def hold(sizes: list[int], size: int, open_shards: int, slots: int, luck: int) -> None:
    source = Sharded(sizes, size, open_shards)
    world = World([source], workers=1 + luck % 3, slots=slots, leases=luck % 2)
    world.run_to_the_end(luck=luck)
    lengths = [len(batch) for batch in world.delivered[0]]
    assert lengths == [size] * (sum(sizes) // size) + [sum(sizes) % size] * (sum(sizes) % size > 0)
    rows = [row for batch in world.delivered[0] for row in batch]
    assert sorted(rows) == sorted(row for shard in source.order for row in source.shard(shard))


rows_of = st.tuples(st.integers(0, 11), st.integers(0, 9))


def sharded(sizes: list[int], off: float | None, raws: int, **options: object) -> Sharded:
    length = None if off is None else max(0, sum(sizes) * raws + off)
    return Sharded(sizes, raws=raws, length=length, **options)  # type: ignore[arg-type]


options = {
    "size": st.integers(1, 5),
    "open_shards": st.integers(1, 4),
    "keep_rest": st.booleans(),
    "bad": st.just(frozenset()) | st.frozensets(rows_of, max_size=1),
    "misfits": st.just(frozenset()) | st.frozensets(rows_of, max_size=1),
}
off = st.sampled_from([None, None, None, 0, 0, 0, -9, -1, 1, 9, math.inf])
shards = st.builds(sharded, small, off, st.integers(1, 3), **options)
parts = st.builds(Sharded, small, in_turn=st.just(False), **options)
fed = st.builds(Sharded, small, in_turn=st.just(False), slack=st.just(0), **options)
worlds = st.builds(
    World,
    st.lists(shards | parts | fed, min_size=1, max_size=3),
    workers=st.integers(1, 5),
    slots=st.integers(1, 12),
    leases=st.integers(0, 4),
    ahead=st.booleans(),
    verify=st.integers(0, 3),
)


@settings(max_examples=400, deadline=None)
@given(worlds, dice, st.booleans())
def test_whatever_happens_the_batches_are_the_same_and_nothing_is_stuck(
    world: World, thrown: list[int], one_by_one: bool
) -> None:
    world.throw(thrown)
    world.run_to_the_end(one_by_one=one_by_one)


@given(small, st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), dice)
def test_parts_give_their_rows_in_the_order_of_the_source(
    sizes: list[int], size: int, window: int, slack: int, thrown: list[int]
) -> None:
    source = Sharded(sizes, size, window, in_turn=False, slack=slack % size)
    world = World([source], workers=3, slots=4)
    world.throw(thrown)
    world.run_to_the_end()
    rows = [row for shard in range(len(sizes)) for row in source.shard(shard)]
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert world.ended[0] == "closed" or world.delivered[0] == batches


def test_a_paused_stream_of_shards_keeps_no_slot_from_one_that_is_pulled() -> None:
    world = World([Sharded([9, 9]), Sharded([4, 4, 4])], slots=2)
    world.join(0)
    world.join(1)
    world.pull(0)
    while any(world.up.values()):
        world.work(0 if world.up[0] else 1)
    assert world.machine.slots_in_use() - len(world.held) == 2, "the first stream has all slots, and gives none back"
    world.run([1])
    assert world.ended == {1: "finished"}


def test_a_stream_whose_share_has_shrunk_goes_on_with_the_shard_that_has_the_turn() -> None:
    world = World([Sharded([9, 9, 9, 2], open_shards=3), Sharded([9])], workers=3, slots=3)
    for worker in range(3):
        world.join(worker)
    world.pull(0)
    for worker in range(3):
        if world.up[worker] and world.up[worker][0].work != ShardWork(3):
            world.work(worker)  # all but the shard that has the turn, and will end
    world.pull(1)
    world.run([0])
    assert world.ended == {0: "finished"}


def test_a_shard_that_kills_every_worker_fails_in_its_turn() -> None:
    world = World([Sharded([9, 9], keep_rest=False, kills=frozenset({(0, 4)}))], slots=4)  # shard 1 is the first
    world.run_to_the_end()
    assert world.ended == {0: "failed"}
    assert world.died_at.most_common(1)[0][1] == RETRIES + 1
    assert world.delivered[0] == [[(1, 0), (1, 1), (1, 2)], [(0, 0), (0, 1), (0, 2)], [(1, 3), (1, 4), (1, 5)]]


def poisonous(sizes: list[int], kills: frozenset[Row], skips: bool, **options: object) -> World:
    return World([Sharded(sizes, kills=kills, skips=skips, **options)], skips=skips)  # type: ignore[arg-type]


poisonous_worlds = st.builds(
    lambda workers, slots, verify, **options: replace(
        poisonous(**options), workers=workers, slots=slots, verify=verify
    ),
    workers=st.integers(1, 4),
    slots=st.integers(1, 6),
    verify=st.integers(0, 3),
    sizes=small,
    kills=st.frozensets(rows_of, max_size=4),
    skips=st.booleans(),
    bad=options["bad"],
    in_turn=st.booleans(),
    size=options["size"],
    open_shards=options["open_shards"],
    keep_rest=options["keep_rest"],
)


@settings(max_examples=300, deadline=None)
@given(poisonous_worlds, dice)
def test_whatever_happens_what_kills_is_left_out_or_the_stream_fails_in_its_turn(
    world: World, thrown: list[int]
) -> None:
    hold_poisonous(world, thrown)


@pytest.mark.stress
@settings(max_examples=5_000, deadline=None)
@given(poisonous_worlds, dice)
def test_the_same_for_many_more_poisonous_shards(world: World, thrown: list[int]) -> None:
    hold_poisonous(world, thrown)


def hold_poisonous(world: World, thrown: list[int]) -> None:
    world.throw(thrown)
    world.run_to_the_end()


def test_rows_that_kill_are_left_out_one_after_the_other() -> None:
    kills = frozenset({(0, 0), (0, 4), (1, 8)})
    world = poisonous([9, 9], kills, skips=True)
    world.run_to_the_end()
    assert (world.ended, world.left_out, world.deaths) == ({0: "finished"}, {0: kills}, 3 * (RETRIES + 1 + TIMES))
    assert sum(len(batch) for batch in world.delivered[0]) == 15


@pytest.mark.parametrize("source", [Sharded([9]), Sharded([9], in_turn=False)])
@pytest.mark.parametrize("examples", [[2, 5, 5, 2, 5, 5, 3], [1, 1, 1, 2, 1, 1, 1, 0]])
def test_whoever_kills_workers_from_outside_finds_no_culprit(source: Sharded, examples: list[int]) -> None:
    """An example is suspected when workers die at it again and again; alone, it does no harm."""
    world = World([source], workers=1, skips=True)
    world.pull(0)
    for example in examples:
        world.join_all()
        while isinstance(work := world.up[0][0].work, ShardWork) and work.until is not None:
            world.work(0)
        world.die(0, example=example)
    world.run_to_the_end()
    assert (world.ended, world.left_out, world.deaths) == ({0: "finished"}, {}, len(examples))


def test_what_cannot_be_left_out_fails() -> None:
    world = World([Sharded([9], kills=frozenset({(0, 4)}))], skips=True, skippable=False)
    world.run_to_the_end()
    assert (world.ended, world.left_out, len(world.delivered[0])) == ({0: "failed"}, {}, 1)


@pytest.mark.parametrize("skips", [False, True])
def test_a_joined_batch_that_kills_every_worker_fails_without_a_name(skips: bool) -> None:
    world = World([Sharded([2, 2], in_turn=False)], workers=1, skips=skips)
    world.expected = [Expected([], KilledReason(None, KILLED))]
    world.pull(0)
    while not world.ended:
        world.join_all()
        if isinstance(world.up[0][0].work, JoinWork):
            world.die(0)
        else:
            world.work(0)
    assert (world.ended, world.deaths) == ({0: "failed"}, RETRIES + 1)
