"""What the trainer asks of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stoker.plan.host_shard import PaddedBatch
from stoker.plan.position import ShardProgress

#: Indices that a message may hold, and examples that a `MakeExamplesRequest` may tell of.
MANY, MAKE = 1024, 1024
#: How the text of a user's state begins: JSON, or a pickle, which only this run's own workers are trusted with.
JSON, PICKLE = "j:", "p:"
Indices = npt.NDArray[np.int64]
NONE = np.zeros(0, np.int64)
#: No row was made before. Else: the row, counted from the task's first; its place in the store, and its bytes there.
NOTHING_MADE = np.zeros((0, 3), np.int64)
#: Stands for a row: what the user's function makes of the whole batch.
COLLATED = -1


@dataclass(frozen=True)
class MakeExamplesRequest:
    """Make single examples, before it is known what batches look like, and put each into its place in the store.

    Attributes:
        numbers: of the examples, in the source.
        places: in the store; items of an iterable lie in its inbox in this order too.
        most: bytes that one may take there.
    """

    task: int
    epoch: int
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    most: int
    without: tuple[int, ...] = ()


@dataclass(frozen=True)
class OpenShardRequest:
    """Open a shard and make the rows of its first steps, before it is known what batches look like.

    Attributes:
        progress: where the shard is opened.
        steps: how many.
        without: numbers of examples that are left out. If there are any, the shard is closed again.
    """

    task: int
    epoch: int
    shard: int
    progress: ShardProgress
    steps: int
    without: tuple[int, ...] = ()


@dataclass(frozen=True)
class DescribeRequest:
    """Find out what the examples look like.

    Attributes:
        numbers: of the examples that are looked at.
        places: where they lie in the store.
        sizes: bytes that each takes there; 0 for one that must be made.
        rows: of the batches that they make.
        one: whether one example may be enough.
        further: whether others can be looked at, where these leave something open.
        without: examples that are left out, each with the shard that it is counted in, or -1.
    """

    task: int
    epoch: int = 0
    numbers: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    one: bool = False
    further: bool = False
    without: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class FormRequest:
    """The pickled `Form` of the batches, needed before the first task that writes rows.

    `draws`: the user's code draws from NumPy's global state.
    """

    pickled: bytes
    draws: bool = False


@dataclass  # not frozen: to make it would take two microseconds longer, for every batch
class IndexTaskRequest:
    """Make examples and write them to rows first, first+1, … of `slot`.

    Attributes:
        rows: of the whole batch.
        serialized: whether each component is written as a `TensorProto`.
        from_inbox: whether the examples are items in the slot's inbox, where the first row's is number `first`.
        count: how many.
        indices: of the examples in the source, of an item only the first; more than `MANY` lie in the slot's inbox.
        trial: nothing is written: the examples are made to see whether that kills the worker, or what comes out.
        digest: whether the answer tells the digest of each example.
        filled: how the batch was filled up, if examples get a weight: those that fill it get 0.
        made: what was made before: see `NOTHING_MADE`.
    """

    task: int
    epoch: int
    slot: int
    first: int
    rows: int
    serialized: bool
    from_inbox: bool
    count: int
    indices: Indices
    trial: bool = False
    digest: bool = False
    filled: PaddedBatch | None = None
    made: Indices = field(default_factory=lambda: NOTHING_MADE)


@dataclass(frozen=True)
class ShardOpening:
    """What a worker needs to open a shard, or to open it again where another worker left it.

    Attributes:
        items: number of items in the slot's inbox that the shard consists of.
        first: number of the first one.
    """

    progress: ShardProgress
    items: int = 0
    first: int = 0


@dataclass(frozen=True)
class ShardTaskRequest:
    """Make the next rows of a shard: a whole batch in `slot`, or, at its end, what is left.

    Attributes:
        parted: rows are never a batch: they are joined with others, whatever their number.
        opening: given when this worker does not have the shard open.
        count: how many examples the shard consists of, when it is a part of a map-style source.
        indices: which they are; more than `MANY` lie in the slot's inbox.
        without: numbers of examples that are left out.
        trial: the rows are made apart from the open shard, and not written.
        until: they are made up to this example, to see whether that kills the worker.
        careful: workers died at this task: an example is converted and written before the next is made, so that the
            progress page tells which one it is.
        digest: whether the answer tells the digest of each example.
        made: of a part that is opened, what was made before: see `NOTHING_MADE`.
    """

    task: int
    epoch: int
    slot: int
    shard: int
    serialized: bool
    parted: bool
    opening: ShardOpening | None
    count: int = 0
    indices: Indices = field(default_factory=lambda: NONE)
    without: tuple[int, ...] = ()
    trial: bool = False
    digest: bool = False
    until: int | None = None
    careful: bool = False
    made: Indices = field(default_factory=lambda: NOTHING_MADE)


@dataclass(frozen=True)
class JoinTaskRequest:
    """Make batch number `batch` of the `count` examples in the slot's inbox."""

    task: int
    epoch: int
    slot: int
    batch: int
    count: int
    serialized: bool


@dataclass(frozen=True)
class LeaveEpochRequest:
    """Close the shards of this epoch: nobody reads it any more."""

    epoch: int


@dataclass(frozen=True)
class UpdateRequest:
    """What `Loader.update` gave, before an epoch for which it counts: the pickled updates, from the first one on."""

    epoch: int
    pickled: bytes


Request = (
    MakeExamplesRequest | OpenShardRequest | DescribeRequest | IndexTaskRequest | ShardTaskRequest | JoinTaskRequest
)


@dataclass(frozen=True)
class EpochUpdate:
    """What one call of `Loader.update` gave: it counts from epoch `since` on. `pickled` is a dict of attributes."""

    number: int
    since: int
    pickled: bytes


#: Examples that `__getitems__` is asked for at once, at most. Fixed: it must not depend on the number of workers.
RUN = 64


#: Examples of a generator that are looked at, where sizes may differ. Of batches, fewer.
LOOK, LOOK_BATCHES = 32, 3
#: Batches that a collate function is tried on.
LOOK_CALLS = 2
#: Those that are looked at where nothing stood in any of these: there are no boxes in most images.
LOOK_FURTHER = 256
