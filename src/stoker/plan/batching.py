"""How examples form batches, for every kind of source, and what is known about an epoch before its first batch."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import dataclass

from stoker.errors import OptionError, SourceError, StateError
from stoker.plan.host_shard import ALL, HostShard
from stoker.plan.order import Order, Plan
from stoker.plan.position import Position


@dataclass(frozen=True)
class Batching:
    """How examples form batches, for every kind of source.

    Attributes:
        size: rows of a full batch, over all trainers. If the user's order gives the batches: of the largest.
        keep_rest: the last batch may be smaller.
        seed: the Loader's seed.
        shuffle: size of the shuffle buffer, or 0.
        window: parts of a source made in parallel if their sizes are not known in advance.
        single: examples are handed out one by one.
        host_shard: this trainer's rows of each batch.
        weighs: each example gets a `sample_weight`.
        bounded: only one batch in all is made ahead, so that examples are fresh.
        sums: the model's losses are sums over a batch, not means.
        is_batched: the source makes the batches itself.
        is_ordered: the user's order says which examples form which batch.
        in_runs: one call of the source makes several examples, with the random numbers of the first one.
    """

    size: int
    keep_rest: bool
    seed: int
    shuffle: int
    window: int
    single: bool = False
    host_shard: HostShard = ALL
    weighs: bool = False
    bounded: bool = False
    sums: bool = False
    is_batched: bool = False
    is_ordered: bool = False
    in_runs: bool = False

    @property
    def rows(self) -> int:
        """This trainer's rows of a full batch."""
        return -(-self.size // self.host_shard.count)  # divisible, unless the user's order gives the batches


@dataclass(frozen=True)
class Outline:
    """The facts known about an epoch's batches before the first one.

    Attributes:
        size: this trainer's rows of a full batch. If examples are handed out one by one: the examples that move
            together.
        single: examples are handed out one by one.
        static_rows: the number of rows that every batch has, or None.
        cardinality: elements of an epoch: None if unknown, `math.inf` if they never end.
    """

    size: int
    single: bool
    static_rows: int | None
    cardinality: float | None


@dataclass(frozen=True)
class EpochCounts:
    """Counts the batches of an epoch in advance.

    Attributes:
        batching: how examples form batches.
        plan: which examples form which batch, for a source that is read by index.
        length: examples that an epoch takes: None if unknown, `math.inf` if they never end.
        has_function: a user function decides how many rows a batch has.
        skips: examples that raise are left out.
        has_marks: the transform mentions SKIP or Many, or the source filters its elements.
    """

    batching: Batching
    plan: Plan | None
    length: float | None
    has_function: bool
    skips: bool
    has_marks: bool

    def outline(self, host_shard: HostShard, *, uneven: bool = False) -> Outline:
        """The outline for the trainer of this host shard. `uneven`: the transform has returned SKIP or Many."""
        size, single = self.batching.size, self.batching.single
        count = None if uneven or self.skips or self.has_marks else self.length
        whole = not self.batching.keep_rest or host_shard.pads
        whole = whole or (count is not None and (count == math.inf or count % size == 0))
        cardinality = count
        if count is not None and math.isfinite(count) and not single:
            cardinality = -(-count // size) if self.batching.keep_rest else count // size
        rows = -(-size // host_shard.count)
        if self.plan is not None and self.plan.in_batches:
            cardinality = None if count is None else self.plan.batches
            whole = count is not None and self.plan.static_rows() is not None and size % host_shard.count == 0
        is_known = whole and not (self.batching.is_batched or self.has_function)  # else user code decides the rows
        return Outline(rows, single, rows if is_known else None, cardinality)

    # ── the epochs of a source that is read by index ─────────────────────────────────────────
    def prepare(self, begin: Position) -> None:
        """Draw the order of an epoch that will begin there, for which a user's function may be called.

        Raises:
            SourceError: the function raised, or gave no order.
            StateError: the order is not the one that the position was saved in.
        """
        given = self.plan.given if self.plan is not None else None
        if given is None:
            return
        drawn = given.prepare(begin.epoch)
        if begin.order is not None and (begin.order != drawn.digest or not given.is_drawn):
            raise StateError(
                f"order= gives another order for epoch {begin.epoch} than when the state was saved, so the batches "
                "after it would not be the same. Let the function depend on its arguments alone, restore what else it "
                "reads before the first batch is taken, or restart the epoch (strict=False)."
            )
        count = self._elements(len(drawn.indices), drawn.bounds)
        if begin.stream is None and begin.taken > count:
            raise StateError(
                f"the state counts {begin.taken:,} batches taken, but epoch {begin.epoch} has only {count:,}."
            )
        if not count:
            raise SourceError(
                f"order= for epoch {begin.epoch}: drop_remainder=True with batch_size={self.batching.size} leaves no "
                f"batch of {len(drawn.indices)} examples. Give more, or use a smaller batch_size."
            )

    @property
    def varies(self) -> bool:
        """True if the user's order decides for each epoch how many elements it has, and nothing changes that."""
        return self.plan is not None and not self.plan.is_fixed and not (self.has_marks or self.skips)

    def upcoming_elements(self, begin: Position) -> int:
        """Number of elements of an epoch that is prepared, but does not exist yet."""
        assert self.plan is not None
        assert self.plan.given is not None
        drawn = self.plan.given.prepare(begin.epoch)
        return self._elements(len(drawn.indices), drawn.bounds)

    def order(self, begin: Position) -> Order:
        """The order of an epoch that begins there. Raises what `prepare` raises, if that was not called before."""
        assert self.plan is not None
        self.prepare(begin)
        return self.plan.order(begin.epoch)

    def elements(self, order: Order) -> int:
        """Number of batches of this epoch, or of examples if they are handed out one by one."""
        return self._elements(order.length, order.bounds)

    def _elements(self, length: int, bounds: Sized | None) -> int:
        if self.batching.single:
            return length
        if bounds is not None:
            return len(bounds) - 1
        full, rest = divmod(length, self.batching.size)
        return full + (rest > 0 and self.batching.keep_rest)

    def check_shares(self, order: Order, epoch: int, host_shard: HostShard) -> None:
        """Raise `SourceError` if a batch of this epoch has too few examples for the trainers of this host shard."""
        rest = order.length % self.batching.size if self.batching.keep_rest else 0
        if order.bounds is not None:
            rest = int((order.bounds[1:] - order.bounds[:-1]).min())
        if 0 < rest < host_shard.count and not host_shard.pads:
            raise SourceError(
                f"order= for epoch {epoch}: a batch has {rest} example{'s' * (rest > 1)}, too few for "
                f"{host_shard.count} trainers, which all take the same number of steps. Give it more, or leave it out."
            )

    def rest(self) -> int:
        """Examples in the last batch, over all trainers."""
        assert self.plan is not None
        return self.plan.rows(self.plan.batches - 1)

    def check(self, host_shard: HostShard) -> None:
        """Raise `OptionError` if batches cannot be divided among the trainers of this host shard."""
        size, count = self.batching.size, host_shard.count
        what = f"shard_count={count}" if count > 1 else "pad_remainder=True"
        if host_shard.index >= count:
            raise OptionError(
                f"shard_index={host_shard.index} must be less than shard_count={count}: trainers are counted from 0."
            )
        if count == 1 and not host_shard.pads:
            return
        plan = self._countable(what)
        if plan.in_batches:
            if host_shard.pads:
                raise OptionError("pad_remainder does not apply: order= gives whole batches, which are not filled up.")
            if plan.is_fixed and (least := self._least_rows(plan)) < count:
                raise OptionError(
                    f"order= gives a batch of {least} examples, too few for {count} trainers, which all take the same "
                    "number of steps. Give it more, or leave it out."
                )
            return
        if size % count:
            raise OptionError(
                f"batch_size={size} covers all trainers together and is not divisible by shard_count={count}. Use "
                f"{size // count * count or count} or {(size // count + 1) * count}."
            )
        if not plan.is_fixed and host_shard.pads:
            raise OptionError(
                "pad_remainder needs to know the last batch in advance, but order= is a function, whose epochs may "
                "differ. Pass drop_remainder=True, or let it fill the last batch up."
            )
        rest = plan.takes % size if plan.is_fixed else 0  # otherwise it is checked for each epoch
        if 0 < rest < count and not host_shard.pads and self.batching.keep_rest:
            raise OptionError(
                f"the last batch has {rest} of {size} examples, too few for {count} trainers, which all take the same "
                "number of steps. Pass drop_remainder=True, or pad_remainder=True to fill it up with sample_weight 0."
            )
        if host_shard.pads and not self.batching.keep_rest:
            raise OptionError(
                "drop_remainder=True excludes pad_remainder=True: the last batch is either left out or filled up."
            )

    @staticmethod
    def _least_rows(plan: Plan) -> int:
        """Examples in the smallest batch that the user's order gives."""
        assert plan.given is not None
        return plan.given.first.least_rows()

    def _countable(self, what: str) -> Plan:
        """The plan. Raises `OptionError` if the rows of a batch are not known in advance."""
        if self.batching.is_batched:
            raise OptionError(
                f"{what} needs to split batches, but this source makes them itself (batched=True). Pass a source of "
                "examples and a batch_size, or give each trainer its own source."
            )
        if self.plan is None or self.batching.single:
            kind = "batch_size=None" if self.plan is not None else "a generator or iterable"
            raise OptionError(
                f"{what} needs numbered batches, but {kind} has none. Use a source with an index, and a batch_size."
            )
        if self.has_marks or self.skips:
            marks = "a transform that returns stoker.SKIP or stoker.Many, or a filter"
            why = "on_error='skip'" if self.skips else marks
            raise OptionError(f"{what} needs to know the rows of each batch in advance, but {why} makes them unknown.")
        return self.plan
