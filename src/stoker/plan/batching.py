"""How examples form batches, for every kind of source, and what is known about an epoch before its first batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stoker.errors import OptionError
from stoker.plan.host_shard import ALL, HostShard
from stoker.plan.order import Plan


@dataclass(frozen=True)
class Batching:
    """How examples form batches, for every kind of source.

    Attributes:
        size: rows of a full batch, over all trainers.
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

    @property
    def rows(self) -> int:
        """This trainer's rows of a full batch."""
        return self.size // self.host_shard.count


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
        length: examples in the source: None if unknown, `math.inf` if they never end.
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
        rows = size // host_shard.count
        is_known = whole and not (self.batching.is_batched or self.has_function)  # else user code decides the rows
        return Outline(rows, single, rows if is_known else None, cardinality)

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
        if size % count:
            raise OptionError(
                f"batch_size={size} covers all trainers together and is not divisible by shard_count={count}. Use "
                f"{size // count * count or count} or {(size // count + 1) * count}."
            )
        rest = plan.length % size
        if 0 < rest < count and not host_shard.pads and self.batching.keep_rest:
            raise OptionError(
                f"the last batch has {rest} of {size} examples, too few for {count} trainers, which all take the same "
                "number of steps. Pass drop_remainder=True, or pad_remainder=True to fill it up with sample_weight 0."
            )
        if host_shard.pads and not self.batching.keep_rest:
            raise OptionError(
                "drop_remainder=True excludes pad_remainder=True: the last batch is either left out or filled up."
            )

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
