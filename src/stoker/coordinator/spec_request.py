"""What batches look like is found out before the first one is made: from examples that it is then made of.

All workers make the examples that are looked at, one after the other, and put them into the store; one describes
them. Where each example has its fixed place in a batch, the first one tells all; else those of the first batches do.
Which these are depends on the source and the options alone. What was made is used where the epoch's batches are made.
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
from stoker.structure.merging import leaves_open, merged
from stoker.structure.spec import Misfit, Spec

#: Examples that are looked at where sizes may differ: at least, if there are so many, and at most. (Of a collate
#: function it is its first batches, whatever their size.)
LEAST, MOST = 8, 512
#: The tasks of each worker, while many examples are made.
_TASKS = 4


@dataclass(frozen=True)
class Look:
    """What must be looked at.

    Attributes:
        one: whether the first example may tell all.
        batches: how many batches.
        least: how many examples.
        most: no more than so many are made beforehand.
        collation: how examples are joined.
        run: examples that are made together; 1 for each by itself.
        skips: whether examples that raise are left out.
        memory: bytes that all of them may take.
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
    """One attempt, and how it failed; those who waited for it are told."""

    error: BaseException | None = None


class SpecRequest:
    """The question. Used under the producer's lock.

    Args:
        look: what must be looked at.
        workers: how many make examples.
        store: where these lie.
        inbox: where the items of an iterable lie.
        size: rows of a batch.
    """

    def __init__(self, look: Look, workers: int, store: ExampleStore, inbox: Inbox, size: int) -> None:
        self._look, self._workers, self._store, self._inbox = look, workers, store, inbox
        self._batches = max(look.batches, math.ceil(look.least / size))
        self._rows, self._most = size, look.most
        self.without: set[tuple[int, int]] = set()  # examples that kill workers, by shard or -1
        self._epoch: Epoch | None = None  # the next one, which is read on from what was looked at
        self.attempt: SpecAttempt | None = None  # under way
        self._looked: ExamplesLookedAt | None = None
        self._sizes: dict[int, int] = {}  # of what was made, by its place; -1 where that raised
        self._one = look.one
        self._units: list[list[int]] = []  # of places (or shards) that are made together, in the round under way
        self._shards: list[tuple[int, ShardProgress]] = []  # that are opened, one after the other
        self._specs: dict[int, list[tuple[Spec, int]]] = {}  # of what they gave
        self._owners: dict[int, int] = {}  # workers that have them open
        self.form: Form | None = None
        self._describes = look.skips and look.collation.function is None  # whether no shards are opened
        self._is_open = False  # whether what was looked at leaves something open
        self._is_stale = False  # whether the epoch will not be what it is now
        self._tells_error = False  # whether the first example that raised is looked at, as those before it gave none
        self.draws = False  # whether the user's code draws from NumPy's global state

    def begin(self, new_epoch: Callable[[], Epoch]) -> Epoch:
        """Start to pull the items that are looked at; returns the epoch whose they are."""
        self._epoch = self._epoch or new_epoch()
        if isinstance(self._epoch, ItemEpoch):
            self._epoch.puller.want(self._epoch.puller.skipped + self._wanted())
        return self._epoch

    def _wanted(self) -> int:
        """How many examples are looked at, if there are so many."""
        return min(self._batches * self._rows, self._most)

    def is_ready(self) -> bool:
        """Whether the items are there."""
        epoch = self._epoch
        if not isinstance(epoch, ItemEpoch):
            return True
        return epoch.puller.count() >= self._wanted() or epoch.puller.ended is not None

    def raised(self) -> BaseException | None:
        """What the iterable raised instead of its first item; the attempt is over then."""
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
        """The next round: its number of rows, and how many make a task."""
        assert self._epoch is not None
        looked = self._epoch.look(self._batches, self._most)
        if looked is not None and looked != self._looked:
            self._looked = looked
            self._inbox.put(looked.items)
        self._units = self._to_be_made()
        rows = max(1, len(self._units))
        return rows, min(MAKE, max(1, rows // (_TASKS * self._workers))) if self._look.run == 1 else 1

    def _to_be_made(self) -> list[list[int]]:
        """The places of the examples that are made in this round; none for the round that describes them."""
        if self._looked is None:
            return self._to_be_opened()
        places = range(self._count())
        if self._one:
            if 0 in self._sizes or not places:
                return []
            rows = min(self._looked.rows[0] if self._looked.rows else 1, len(places))
            if self._look.run > 1:
                return [list(range(min(rows, self._look.run)))]
            spread = min(rows, self._workers)  # so that each worker has begun its part of the first batch
            return [[part * rows // spread] for part in range(spread)]
        if self._look.run == 1:
            return [[place] for place in places if self._size(place) is None]
        units, start = list[list[int]](), 0
        for rows in self._looked.rows or (len(places),):  # runs begin with the batch
            units += [
                list(range(at, min(at + self._look.run, start + rows)))
                for at in range(start, start + rows, self._look.run)
            ]
            start += rows
        return [unit for unit in units if unit[-1] < len(places) and any(self._size(place) is None for place in unit)]

    def _to_be_opened(self) -> list[list[int]]:
        """The shards that are opened in this round, by their place among the first ones."""
        assert self._epoch is not None
        assert isinstance(self._epoch, ShardEpoch)
        if self._describes:
            return []
        if not self._shards:
            self._shards = self._epoch.first_shards()
        waiting = [place for place in range(len(self._shards)) if place not in self._specs]
        return [[place] for place in waiting[: self._workers]]

    def _is_enough(self) -> bool:
        """Whether the shards that were opened, in their order, tell what batches look like."""
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
            except Misfit:  # one by one, which tells the example
                self._describes = True
                return False
            if leaves_open(spec, rules):
                self._describes = all_opened
                return False
        self.form = Form.of(spec, rules)
        return True

    def opened(self, worker: int, task: Task, answer: ShardOpenedReply) -> None:
        """A worker has opened a shard."""
        assert isinstance(task.work, IndexWork | TrialWork)
        (place,) = self._units[task.work.first]
        shard = self._shards[place][0]
        self._specs[place] = pickle.loads(answer.specs) if answer.specs else []
        self._owners.pop(shard, None)
        if answer.is_open:
            self._owners[shard] = worker

    def died(self, worker: int) -> None:
        """What a worker had open is lost."""
        for shard in [shard for shard, owner in self._owners.items() if owner == worker]:
            del self._owners[shard]

    def _count(self) -> int:
        assert self._looked is not None
        return len(self._looked.numbers)

    def _size(self, place: int) -> int | None:
        """Bytes of what was made: -1 where it is left out, None where nothing was made."""
        assert self._looked is not None
        return -1 if (-1, self._looked.numbers[place]) in self.without else self._sizes.get(place)

    def question(self, task: Task) -> MakeExamplesRequest | OpenShardRequest | DescribeRequest:
        """What a worker is asked."""
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
            before = places.index(raised[0])  # the first one tells of its error, if it raised
            places = places[: before + 1 if self._tells_error else max(1, before)]
        sizes = tuple(max(0, self._size(place) or 0) for place in places)
        numbers = tuple(self._looked.numbers[place] for place in places)
        rows = self._looked.rows or (len(numbers),)
        further = self._wanted() < LOOK_FURTHER and self._may_look_further()
        its = numbers, tuple(places), sizes, rows
        return DescribeRequest(task, self._epoch.number, *its, self._one, further, tuple(self.without))

    def made(self, task: Task, answer: ExamplesMadeReply) -> None:
        """A worker has made examples."""
        assert isinstance(task.work, IndexWork | TrialWork)
        units = self._units[task.work.first : task.work.first + task.work.count]
        places = [place for unit in units for place in unit]
        self.draws = self.draws or answer.draws
        self._sizes.update(zip(places, answer.sizes, strict=False))
        for place in places[len(answer.sizes) :]:
            self._sizes.setdefault(place, -1)

    def described(self, answer: DescribedReply) -> None:
        """A worker has looked at them."""
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
        """Whether what was looked at leaves something open: more of it must be there. Whoever waits asks again."""
        is_open, self._is_open = self._is_open, False
        return is_open and self.look_further()

    def is_known(self) -> bool:
        """Whether it is known now, at the end of a round, what batches look like; raises `Misfit`."""
        return self.form is not None or (bool(self._shards) and not self._describes and self._is_enough())

    def _early(self, looked: ExamplesLookedAt, collated: tuple[int, ...]) -> ExamplesMade:
        """What the epoch's batches are made of."""
        made = {looked.numbers[place]: (place, size) for place, size in self._sizes.items() if size > 0}
        batches, start = dict[int, tuple[int, int, int]](), 0
        for number, (rows, size) in enumerate(zip(looked.rows, collated, strict=False)):
            if size:
                batches[looked.numbers[start]] = rows, BATCHES + number, size
            start += rows
        return ExamplesMade(made, batches, len(looked.rows))

    def found_none(self) -> bool:
        """No example was found: whether there is more to look at, or an error to tell. Whoever waits asks again."""
        if not self._look.skips and not self._tells_error and -1 in self._sizes.values():
            self._tells_error, self.attempt = True, None
            return True
        return self.look_further()

    def look_further(self) -> bool:
        """Whether there is more to look at. Whoever waits asks again."""
        if not self._may_look_further():
            return False
        self._batches, self._most = 2 * self._batches, 2 * self._most
        self.attempt = None
        return True

    def _may_look_further(self) -> bool:
        """Whether there may be more than is looked at."""
        return self._epoch is not None and self._looked is not None and len(self._looked.numbers) >= self._wanted()

    def leave_out(self, place: Activity) -> bool:
        """Look at other examples than the one that a worker died at, if it is known. Whoever waits asks again."""
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
        """The attempt is over; the next one may do better."""
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

    # ── the epoch that was looked at ─────────────────────────────────────────────────────────
    def give_epoch(self, epoch: Epoch) -> None:
        """Take it back: nobody reads it yet."""
        self._epoch = epoch

    def take_epoch(self) -> Epoch | None:
        """The epoch whose items were looked at, to be read now; None when there is none."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.opened(self._owners)
        return epoch

    def outdate(self) -> None:
        """The epoch will not be what it is now, if it was looked at already: its examples are made again."""
        self._is_stale = self._epoch is not None
        if self._epoch is not None and self.form is not None:
            self.is_past(self._epoch)

    def abandon(self, worker: int) -> bool:
        """The epoch is read by this worker alone; returns whether others have shards of it open."""
        others = [shard for shard, owner in self._owners.items() if owner != worker]
        for shard in others:
            del self._owners[shard]
        return bool(others)

    def drop(self, epoch: Epoch) -> None:
        """Nobody reads the epoch that was looked at."""
        epoch.close()
        self._owners.clear()
        self.is_past(epoch)

    def close(self) -> None:
        """Give up the store."""
        self._store.close()
        self._inbox.close()

    def is_past(self, epoch: Epoch) -> None:
        """What was made early of this epoch is needed no more."""
        if epoch.early is not None:
            epoch.early = None
            self._store.empty()
