"""Determines the form of the batches before the first one is made, from the examples that it will consist of.

All workers make the inspected examples, one after the other, and put them into the store. One worker describes them.
If each example has a fixed place in a batch, the first example suffices; otherwise those of the first batches are
inspected. Which ones these are depends only on the source and the options. The examples are reused when the epoch's
batches are made.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

from stoker.coordinator.faults import IN_A_ROW
from stoker.epochs.epoch import Epoch, ExamplesLookedAt, ExamplesMade
from stoker.epochs.item_epoch import ItemEpoch
from stoker.epochs.shard_epoch import ShardEpoch
from stoker.memory.example_store import BATCHES, ExampleStore
from stoker.memory.progress_page import Activity, Phase
from stoker.memory.slot import Inbox
from stoker.plan.position import ShardProgress
from stoker.protocol.replies import DescribedReply, ExamplesMadeReply, ShardOpenedReply
from stoker.protocol.requests import LOOK_FURTHER, MAKE, DescribeRequest, MakeExamplesRequest, OpenShardRequest
from stoker.scheduler.work import IndexWork, Task, TrialWork
from stoker.structure.collation import Collation, Form, is_stacked_in_place
from stoker.structure.forms import Misfit
from stoker.structure.merging import leaves_open, merged
from stoker.structure.spec import Spec

#: Number of examples to inspect if sizes may differ: at least (if there are that many), and at most. For a collate
#: function, its first batches are inspected, whatever their size.
LEAST, MOST = 8, 512
#: Number of tasks per worker, while many examples are made.
_TASKS = 4


@dataclass(frozen=True)
class Look:
    """What must be inspected.

    Attributes:
        one: whether the first example may suffice.
        batches: number of batches.
        least: minimum number of examples.
        most: maximum number of examples that are made beforehand.
        collation: how examples are joined.
        run: number of examples that are made together; 1 if each is made by itself.
        skips: whether examples that raise are left out.
        memory: maximum bytes of all of them.
    """

    one: bool
    batches: int
    least: int
    most: int
    collation: Collation
    run: int
    skips: bool
    memory: int


@dataclass(eq=False)
class SpecAttempt:
    """One attempt, with the error if it failed. All who waited for the attempt raise that error."""

    error: BaseException | None = None


class SpecRequest:
    """The request for the form of the batches. Used under the producer's lock.

    It runs in rounds: workers make examples or open shards, until their form is known.

    Args:
        look: what must be inspected.
        workers: number of workers that make examples.
        store: holds the examples.
        inbox: holds the items of an iterable.
        size: rows of a batch.
    """

    def __init__(self, look: Look, workers: int, store: ExampleStore, inbox: Inbox, size: int) -> None:
        self._look, self._workers, self._store, self._inbox = look, workers, store, inbox
        self._batches = max(look.batches, math.ceil(look.least / size))
        self._rows, self._most = size, look.most
        self.without: set[tuple[int, int]] = set()  # examples that kill workers: (shard or -1, example)
        self._epoch: Epoch | None = None  # the next epoch, which reuses the inspected examples
        self.attempt: SpecAttempt | None = None  # the current one
        self._looked: ExamplesLookedAt | None = None
        self._sizes: dict[int, int] = {}  # of the examples made, by place; -1 for one that raised
        self._one = look.one
        self._units: list[list[int]] = []  # places (or shards) that are made together, in the current round
        self._shards: list[tuple[int, ShardProgress]] = []  # to be opened, in this order
        self._specs: dict[int, list[tuple[Spec, int]]] = {}  # specs and counts of what they gave
        self._owners: dict[int, int] = {}  # workers that have shards open, by shard
        self.form: Form | None = None
        self._describes = look.skips and look.collation.function is None  # whether no shards are opened
        self._is_open = False  # whether the inspected examples leave something undetermined
        self._is_stale = False  # whether an update will change the epoch
        self._tells_error = False  # whether to report the first error, as the examples before it gave no output
        self.draws = False  # whether the user's code draws from NumPy's global random state

    def begin(self, new_epoch: Callable[[], Epoch]) -> Epoch:
        """Start to pull the items to inspect. Returns the epoch that they belong to."""
        self._epoch = self._epoch or new_epoch()
        if isinstance(self._epoch, ItemEpoch):
            self._epoch.puller.want(self._epoch.puller.skipped + self._wanted())
        return self._epoch

    def _wanted(self) -> int:
        """Number of examples to inspect, if there are that many."""
        return min(self._batches * self._rows, self._most)

    def is_ready(self) -> bool:
        """True if the items have arrived."""
        epoch = self._epoch
        if not isinstance(epoch, ItemEpoch):
            return True
        return epoch.puller.count() >= self._wanted() or epoch.puller.ended is not None

    def raised(self) -> BaseException | None:
        """The error that the iterable raised instead of its first item, or None. An error ends the attempt."""
        epoch = self._epoch
        if not isinstance(epoch, ItemEpoch) or epoch.puller.ended is None or epoch.puller.in_sight():
            return None
        error = epoch.puller.ended.error
        if error is not None:
            epoch.close()
            self._forget()
            self._epoch = self.attempt = None
        return error

    # ── rounds ───────────────────────────────────────────────────────────────────────────────
    def begin_round(self) -> tuple[int, int]:
        """Begin the next round. Returns its number of rows, and the rows per task."""
        assert self._epoch is not None
        looked = self._epoch.look(self._batches, self._most)
        if looked is not None and looked != self._looked:
            self._looked = looked
            self._inbox.put(looked.items)
        self._units = self._to_be_made()
        rows = max(1, len(self._units))
        return rows, min(MAKE, max(1, rows // (_TASKS * self._workers))) if self._look.run == 1 else 1

    def _to_be_made(self) -> list[list[int]]:
        """The places of the examples to make in this round; empty for the round that describes them."""
        if self._looked is None:
            return self._to_be_opened()
        places = range(self._count())
        if self._one:
            if 0 in self._sizes or not places:
                return []
            rows = min(self._looked.rows[0] if self._looked.rows else 1, len(places))
            if self._look.run > 1:
                return [list(range(min(rows, self._look.run)))]
            spread = min(rows, self._workers)  # so that each worker begins its part of the first batch
            return [[part * rows // spread] for part in range(spread)]
        if self._look.run == 1:
            return [[place] for place in places if self._size(place) is None]
        units, start = list[list[int]](), 0
        for rows in self._looked.rows or (len(places),):  # runs start at the beginning of a batch
            units += [
                list(range(at, min(at + self._look.run, start + rows)))
                for at in range(start, start + rows, self._look.run)
            ]
            start += rows
        return [unit for unit in units if unit[-1] < len(places) and any(self._size(place) is None for place in unit)]

    def _to_be_opened(self) -> list[list[int]]:
        """The shards to open in this round, by their place among the first shards."""
        assert self._epoch is not None
        assert isinstance(self._epoch, ShardEpoch)
        if self._describes:
            return []
        if not self._shards:
            self._shards = self._epoch.first_shards()
        waiting = [place for place in range(len(self._shards)) if place not in self._specs]
        return [[place] for place in waiting[: self._workers]]

    def _is_enough(self) -> bool:
        """Derive the form of the batches from the shards opened so far, in order. Returns whether they suffice."""
        found = [one for place in range(len(self._shards)) for one in self._specs.get(place, ())]
        if not found:
            return False
        collation, all_opened = self._look.collation, len(self._specs) == len(self._shards)
        if collation.function is not None or collation.default == "asis":
            if len(found) < self._look.batches and not all_opened:
                return False
            spec = merged([spec for spec, _ in found[: self._look.batches]])
            self.form = Form.of(spec, ["asis"] * len(spec.leaves))
            return True
        specs, count, spec = list[Spec](), 0, found[0][0]
        rules = collation.rules(spec)
        if not (self._look.one and is_stacked_in_place(spec, rules)):
            for one, its in found:
                specs.append(one)
                count += its
                if count >= self._look.least:
                    break
            if count < self._look.least and not all_opened:
                return False
            try:
                spec = merged(specs)
            except Misfit:  # inspect examples one by one, which identifies the misfit
                self._describes = True
                return False
            if leaves_open(spec, rules):
                self._describes = all_opened
                return False
        self.form = Form.of(spec, rules)
        return True

    def opened(self, worker: int, task: Task, answer: ShardOpenedReply) -> None:
        """Record what a worker found when it opened a shard."""
        assert isinstance(task.work, IndexWork | TrialWork)
        (place,) = self._units[task.work.first]
        shard = self._shards[place][0]
        self._specs[place] = pickle.loads(answer.specs) if answer.specs else []
        self._owners.pop(shard, None)
        if answer.is_open:
            self._owners[shard] = worker

    def died(self, worker: int) -> None:
        """Forget the shards that a dead worker had open."""
        for shard in [shard for shard, owner in self._owners.items() if owner == worker]:
            del self._owners[shard]

    def _count(self) -> int:
        assert self._looked is not None
        return len(self._looked.numbers)

    def _size(self, place: int) -> int | None:
        """Bytes of the example at a place: -1 if it raised or is left out, None if it was not made."""
        assert self._looked is not None
        return -1 if (-1, self._looked.numbers[place]) in self.without else self._sizes.get(place)

    def question(self, task: Task) -> MakeExamplesRequest | OpenShardRequest | DescribeRequest:
        """The request to a worker for a task."""
        assert self._epoch is not None
        without = tuple(self.without)
        if not self._units:
            return self._description(task.id)
        assert isinstance(task.work, IndexWork | TrialWork)
        if self._looked is None:
            (place,) = self._units[task.work.first]
            shard, progress = self._shards[place]
            steps = math.ceil(self._batches / len(self._shards))
            its = tuple(number for of, number in self.without if of == shard)
            return OpenShardRequest(task.id, self._epoch.number, shard, progress, steps, its)
        units = self._units[task.work.first : task.work.first + task.work.count]
        places = tuple(place for unit in units for place in unit)
        numbers = tuple(self._looked.numbers[place] for place in places)
        most = self._look.memory // max(1, self._count())
        return MakeExamplesRequest(
            task.id, self._epoch.number, numbers, places, most, tuple(number for _, number in without)
        )

    def _description(self, task: int) -> DescribeRequest:
        assert self._epoch is not None
        if self._looked is None:
            return DescribeRequest(task, self._epoch.number, without=tuple(self.without))
        places = list(range(min(1, self._count()) if self._one else self._count()))
        places = [place for place in places if (-1, self._looked.numbers[place]) not in self.without]
        if self._look.skips:
            places = [place for place in places if self._size(place) != -1]
        elif raised := [place for place in places if self._size(place) == -1]:
            before = places.index(raised[0])  # if the very first raised, its error is reported
            places = places[: before + 1 if self._tells_error else max(1, before)]
        sizes = tuple(max(0, self._size(place) or 0) for place in places)
        numbers = tuple(self._looked.numbers[place] for place in places)
        rows = self._looked.rows or (len(numbers),)
        further = self._wanted() < LOOK_FURTHER and self._may_look_further()
        its = numbers, tuple(places), sizes, rows
        return DescribeRequest(task, self._epoch.number, *its, self._one, further, tuple(self.without))

    def made(self, task: Task, answer: ExamplesMadeReply) -> None:
        """Record the examples that a worker has made."""
        assert isinstance(task.work, IndexWork | TrialWork)
        units = self._units[task.work.first : task.work.first + task.work.count]
        places = [place for unit in units for place in unit]
        self.draws = self.draws or answer.draws
        self._sizes.update(zip(places, answer.sizes, strict=False))
        for place in places[len(answer.sizes) :]:
            self._sizes.setdefault(place, -1)

    def described(self, answer: DescribedReply) -> None:
        """Record a worker's description of the examples."""
        self.draws = self.draws or answer.draws
        if not answer.pickled:
            self._is_open = not self._one
            self._one = False
            return
        self.form = pickle.loads(answer.pickled)
        if self._is_stale:
            self._store.empty()
        elif self._epoch is not None and self._looked is not None:
            self._epoch.early = self._early(self._looked, answer.collated)

    def wants_more(self) -> bool:
        """True if the inspected examples leave something undetermined and more can be inspected.

        The attempt is then over, and the waiting threads start a new one.
        """
        is_open, self._is_open = self._is_open, False
        return is_open and self.look_further()

    def is_known(self) -> bool:
        """True if the form of the batches is known at the end of a round. Raises `Misfit`."""
        return self.form is not None or (bool(self._shards) and not self._describes and self._is_enough())

    def _early(self, looked: ExamplesLookedAt, collated: tuple[int, ...]) -> ExamplesMade:
        """The examples and collated batches that the epoch's batches can reuse."""
        made = {looked.numbers[place]: (place, size) for place, size in self._sizes.items() if size > 0}
        batches, start = dict[int, tuple[int, int, int]](), 0
        for number, (rows, size) in enumerate(zip(looked.rows, collated, strict=False)):
            if size:
                batches[looked.numbers[start]] = rows, BATCHES + number, size
            start += rows
        return ExamplesMade(made, batches, len(looked.rows))

    def found_none(self) -> bool:
        """Handle a round without any example. Returns whether there is more to inspect, or an error to report.

        If so, the attempt is over, and the waiting threads start a new one.
        """
        if not self._look.skips and not self._tells_error and -1 in self._sizes.values():
            self._tells_error, self.attempt = True, None
            return True
        return self.look_further()

    def look_further(self) -> bool:
        """Inspect more examples, if there may be more. Returns whether; waiting threads then start a new attempt."""
        if not self._may_look_further():
            return False
        self._batches, self._most = 2 * self._batches, 2 * self._most
        self.attempt = None
        return True

    def _may_look_further(self) -> bool:
        """True if there may be more examples than those inspected."""
        return self._epoch is not None and self._looked is not None and len(self._looked.numbers) >= self._wanted()

    def leave_out(self, place: Activity) -> bool:
        """Leave out the example that a worker died at, if it is known and the limit allows. Returns whether it is done.

        If so, the attempt is over, and the waiting threads start a new one.
        """
        example = -1 if place.shard is None else place.shard, place.example
        if place.example is None or place.phase is not Phase.READING or example in self.without:
            return False
        if len(self.without) >= IN_A_ROW:
            return False
        self.without.add((example[0], place.example))
        self._specs = {at: specs for at, specs in self._specs.items() if self._shards[at][0] != place.shard}
        self.attempt = None
        return True

    def failed(self, error: BaseException) -> None:
        """End the attempt with an error. The next attempt may succeed."""
        assert self.attempt is not None
        self.attempt.error, self.attempt = error, None
        self._forget()

    def _forget(self) -> None:
        self._looked, self._sizes, self._one = None, {}, self._look.one
        self._shards, self._specs, self.form = [], {}, None
        self._owners.clear()
        self._store.empty()
        self._is_open = self._is_stale = self._tells_error = False
        self._describes = self._look.skips and self._look.collation.function is None

    # ── the inspected epoch ──────────────────────────────────────────────────────────────────
    def give_epoch(self, epoch: Epoch) -> None:
        """Take back an epoch that is not read yet."""
        self._epoch = epoch

    def take_epoch(self) -> Epoch | None:
        """Hand over the inspected epoch, which is read now; None if there is none."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.opened(self._owners)
        return epoch

    def outdate(self) -> None:
        """Note that the epoch will change. If it was already inspected, its examples must be made again."""
        self._is_stale = self._epoch is not None
        if self._epoch is not None and self.form is not None:
            self.is_past(self._epoch)

    def abandon(self, worker: int) -> bool:
        """Let `worker` alone read the epoch. Returns whether others had shards of it open."""
        others = [shard for shard, owner in self._owners.items() if owner != worker]
        for shard in others:
            del self._owners[shard]
        return bool(others)

    def drop(self, epoch: Epoch) -> None:
        """Discard the inspected epoch, which is not going to be read."""
        epoch.close()
        self._owners.clear()
        self.is_past(epoch)

    def close(self) -> None:
        """Close the store and the inbox."""
        self._store.close()
        self._inbox.close()

    def is_past(self, epoch: Epoch) -> None:
        """Discard the examples of an epoch that were made early and are no longer needed."""
        if epoch.early is not None:
            epoch.early = None
            self._store.empty()
