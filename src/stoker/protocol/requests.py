"""Messages from the trainer to a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stoker.plan.host_shard import PaddedBatch
from stoker.plan.position import ShardProgress

#: The most indices in a message, and the most examples in a `MakeExamplesRequest`.
MANY, MAKE = 1024, 1024
#: Prefixes of an iterator state's text: JSON, or a pickle. A pickle is trusted only from this run's own workers.
JSON, PICKLE = "j:", "p:"
Indices = npt.NDArray[np.int64]
NONE = np.zeros(0, np.int64)
#: No row was made before. Otherwise, for each row: its number within the task, its place in the store, its bytes there.
NOTHING_MADE = np.zeros((0, 3), np.int64)
#: Used in place of a row for the result of the user's collate function, the whole batch.
COLLATED = -1


@dataclass(frozen=True)
class MakeExamplesRequest:
    """Make single examples, before the form of batches is known, and put each into its place in the store.

    Attributes:
        numbers: numbers of the examples in the source.
        places: their places in the store. Items of an iterable lie in its inbox in the same order.
        most: bytes that one example may take there.
    """

    task: int
    epoch: int
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    most: int
    without: tuple[int, ...] = ()


@dataclass(frozen=True)
class OpenShardRequest:
    """Open a shard and make the rows of its first steps, before the form of batches is known.

    Attributes:
        progress: the position at which to open the shard.
        steps: number of steps.
        without: numbers of examples to leave out. If there are any, the shard is closed again.
        key: distinguishes iterations that read the same epoch; each has its own shards open.
    """

    task: int
    epoch: int
    shard: int
    progress: ShardProgress
    steps: int
    without: tuple[int, ...] = ()
    key: int = 0


@dataclass(frozen=True)
class DescribeRequest:
    """Determine the form of examples and batches.

    Attributes:
        numbers: numbers of the examples to examine.
        places: their places in the store.
        sizes: bytes that each takes there; 0 for one that must be made.
        rows: rows of the batches that they form.
        one: one example may be enough.
        further: more examples are available if these leave something open.
        without: examples to leave out, each with the shard that numbers it, or None.
    """

    task: int
    epoch: int = 0
    numbers: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    one: bool = False
    further: bool = False
    without: tuple[tuple[int | None, int], ...] = ()


@dataclass(frozen=True)
class FormRequest:
    """The pickled `Form` of the batches, sent before the first task that writes rows.

    `draws`: user code draws from NumPy's global state.
    """

    pickled: bytes
    draws: bool = False


@dataclass  # not frozen, which would cost two microseconds more for every batch
class IndexTaskRequest:
    """Make examples and write them to rows first, first+1, … of `slot`.

    Attributes:
        rows: rows of the whole batch.
        serialized: write each component as a `TensorProto`.
        from_inbox: the examples are items in the slot's inbox, where item `first` belongs to the first row.
        count: number of examples.
        indices: indices of the examples in the source; for items, only the first. More than `MANY` lie in the slot's
            inbox.
        trial: write nothing. Make the examples to see whether they kill the worker, or what comes out.
        digest: the reply contains the digest of each example.
        filled: how the batch was padded, if examples get a weight: the padding rows get 0.
        made: rows made before; see `NOTHING_MADE`.
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
    """Where and how to open a shard, or to reopen it where another worker left off.

    Attributes:
        items: number of items in the slot's inbox that make up the shard.
        first: number of the first item.
    """

    progress: ShardProgress
    items: int = 0
    first: int = 0


@dataclass(frozen=True)
class ShardTaskRequest:
    """Make the next rows of a shard: a whole batch in `slot` or, at the shard's end, the remainder.

    Attributes:
        parted: the rows never form a batch by themselves. They are joined with others, however many they are.
        opening: given if this worker does not have the shard open.
        count: number of examples in the shard, if it is a part of a map-style source.
        indices: their indices; more than `MANY` lie in the slot's inbox.
        without: numbers of examples to leave out.
        trial: make the rows apart from the open shard, and do not write them.
        until: make rows up to this example, to see whether it kills the worker.
        careful: workers died at this task. Convert and write each example before making the next, so that the
            progress page shows which one is at fault.
        digest: the reply contains the digest of each example.
        made: rows made before, for a part that is being opened; see `NOTHING_MADE`.
        key: distinguishes iterations that read the same epoch; each has its own shards open.
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
    key: int = 0


@dataclass(frozen=True)
class JoinTaskRequest:
    """Make batch number `batch` from the `count` examples in the slot's inbox."""

    task: int
    epoch: int
    slot: int
    batch: int
    count: int
    serialized: bool


@dataclass(frozen=True)
class LeaveEpochRequest:
    """Close the shards of the iteration with this key; `is_last`: its epoch has no reader left."""

    epoch: int
    key: int = 0
    is_last: bool = True


@dataclass(frozen=True)
class UpdateRequest:
    """The pickled updates from `Loader.update`, oldest first. Sent before an epoch that they apply to."""

    epoch: int
    pickled: bytes


Request = (
    MakeExamplesRequest | OpenShardRequest | DescribeRequest | IndexTaskRequest | ShardTaskRequest | JoinTaskRequest
)


@dataclass(frozen=True)
class EpochUpdate:
    """One call of `Loader.update`, in effect from epoch `since` on. `pickled` is a dict of attributes."""

    number: int
    since: int
    pickled: bytes


#: The most examples in one `__getitems__` call. Fixed, because it must not depend on the number of workers.
RUN = 64


#: Examples (or batches) of a generator to examine where sizes may differ.
LOOK, LOOK_BATCHES = 32, 3
#: Batches on which to try a collate function.
LOOK_CALLS = 2
#: Examples to examine if a leaf was empty in all of those: most images contain no boxes.
LOOK_FURTHER = 256
