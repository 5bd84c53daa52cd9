"""Determines the form of the batches before the first one is made, from the examples that it will consist of.

If each example has a fixed place in a batch, the first example suffices; otherwise those of the first batches are
inspected. Which ones these are depends only on the source and the options. The search runs in rounds. Each round is the
only batch of a stream, whose rows are examples to make or shards to open; in the last round, one worker describes what
was made.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

from stoker.coordinator.consumer_errors import ReportedFailure, error_of
from stoker.coordinator.faults import IN_A_ROW
from stoker.coordinator.look_options import LookOptions
from stoker.coordinator.numbered_look import NumberedLook
from stoker.coordinator.sharded_look import ShardedLook
from stoker.engines.engine import WorkerDeath
from stoker.epochs.epoch import Epoch
from stoker.errors import OptionError, SpecError
from stoker.memory.example_store import ExampleStore
from stoker.memory.progress_page import Activity, Phase
from stoker.memory.slot import Inbox
from stoker.plan.position import Position
from stoker.protocol.replies import DescribedReply, ExamplesMadeReply, FailureKind, FailureReply, ShardOpenedReply
from stoker.protocol.requests import LOOK_FURTHER, Request
from stoker.scheduler.commands import DeliverCommand, FailCommand, KilledReason
from stoker.scheduler.events import CloseEvent, Event, PullEvent, SlotReleasedEvent
from stoker.scheduler.streams import IndexStream, Stream
from stoker.scheduler.work import IndexWork, Task, TrialWork
from stoker.structure.collation import Form
from stoker.structure.forms import Misfit


@dataclass(eq=False)
class FormAttempt:
    """One attempt to determine the form. All who wait for it raise its error, if it failed.

    Attributes:
        error: the error, or None.
        is_void: whether the epoch that is inspected will not be read as it is. An error then says nothing.
    """

    error: BaseException | None = None
    is_void: bool = False


class FormFinder:
    """Determines the form of the batches. Used under the producer's lock.

    Args:
        options: what must be inspected.
        workers: number of workers that make examples.
        store: holds the examples.
        inbox: holds the items of an iterable.
        size: rows of a batch.

    Attributes:
        attempt: the current attempt, or None.
        form: the form, once it is known.
        is_superseded: whether the epoch that is being inspected is not going to be read.
        is_over: whether the epoch that is being inspected begins in mid-epoch, and no example of its rest can be
            batched.
        draws: whether the user's code draws from NumPy's global random state.
    """

    def __init__(self, options: LookOptions, workers: int, *, store: ExampleStore, inbox: Inbox, size: int) -> None:
        self._options, self._store, self._inbox = options, store, inbox
        self._batches = max(options.batches, math.ceil(options.least / size))
        self._size, self._most = size, options.most
        self._without: set[tuple[int | None, int]] = set()  # examples that kill workers: (shard or None, example)
        self._numbered = NumberedLook(options, workers, inbox, self._without)
        self._sharded = ShardedLook(options, workers, self._without)
        self._epoch: Epoch | None = None  # the next epoch, which reuses the inspected examples
        self._is_open = False  # whether the inspected examples leave something undetermined
        self._is_stale = False  # whether an update will change the epoch
        self._raises_first = False  # whether to report the first error, as the examples before it gave no output
        self.attempt: FormAttempt | None = None
        self.form: Form | None = None
        self.is_superseded = False
        self.is_over = False
        self.draws = False

    def begin(self, new_epoch: Callable[[], Epoch]) -> Epoch:
        """Start to pull the items to inspect. Returns the epoch that they belong to."""
        self._epoch = self._epoch or new_epoch()
        if self._epoch.pulled is not None:
            self._epoch.pulled.want(self._wanted())
        return self._epoch

    def _wanted(self) -> int:
        """Number of examples to inspect, if there are that many."""
        return min(self._batches * self._size, self._most)

    def is_ready(self) -> bool:
        """True if the items have arrived."""
        pulled = self._epoch.pulled if self._epoch is not None else None
        return pulled is None or pulled.has(self._wanted())

    def raised(self) -> BaseException | None:
        """The error that the iterable raised instead of its first item, or None. An error ends the attempt."""
        if self._epoch is None or self._epoch.pulled is None:
            return None
        error = self._epoch.pulled.first_error()
        if error is not None:
            self._epoch.close()
            self._forget()
            self._epoch, self.attempt, self.is_superseded = None, None, False
        return error

    # ── rounds ───────────────────────────────────────────────────────────────────────────────
    def open_stream(self, number: int) -> Stream:
        """Begin the next round. Returns its stream."""
        assert self._epoch is not None
        examples = self._epoch.look(self._batches, self._most)
        if examples is not None:
            self._numbered.see(examples)
            rows, each = self._numbered.begin_round()
        else:
            rows, each = self._sharded.begin_round(self._epoch), 1
        return IndexStream(number, 1, lambda batch: rows, rows, spread=each)

    def request(self, task: Task) -> Request:
        """The request to a worker for a task."""
        assert self._epoch is not None
        assert isinstance(task.work, IndexWork | TrialWork)
        epoch, first, count = self._epoch.number, task.work.first, task.work.count
        if self._numbered.examples is None:
            if self._sharded.is_describing():
                return self._sharded.description(task.id, epoch)
            return self._sharded.request(task.id, self._epoch, first, self._batches)
        if not self._numbered.is_describing():
            return self._numbered.request(task.id, epoch, first, count)
        further = self._wanted() < LOOK_FURTHER and self._may_look_further()
        return self._numbered.description(task.id, epoch, further=further, raises_first=self._raises_first)

    def heard(self, worker: int, task: Task, reply: ExamplesMadeReply | ShardOpenedReply | DescribedReply) -> None:
        """Record a worker's reply to a task."""
        assert isinstance(task.work, IndexWork | TrialWork)
        match reply:
            case ExamplesMadeReply():
                self.draws = self.draws or reply.draws
                self._numbered.made(task.work.first, task.work.count, reply)
            case ShardOpenedReply():
                self._sharded.opened(worker, task.work.first, reply)
            case DescribedReply():
                self.draws = self.draws or reply.draws
                self._described(reply)

    def died(self, worker: int) -> None:
        """Forget the shards that a dead worker had open."""
        self._sharded.died(worker)

    def _described(self, reply: DescribedReply) -> None:
        if not reply.pickled:
            self._is_open = self._numbered.needs_all()
            return
        self.form = pickle.loads(reply.pickled)
        if self._is_stale:
            self._store.empty()
        elif self._epoch is not None:
            self._epoch.early = self._numbered.early(reply)

    # ── outcomes of rounds ───────────────────────────────────────────────────────────────────
    def outcome(self, command: DeliverCommand | FailCommand) -> list[Event]:
        """Process the outcome of a round. Returns the events that follow.

        Either the form is known, or the next round follows, or the attempt has ended, without an error where the
        waiting threads are to start a new one.
        """
        if isinstance(command, DeliverCommand):
            return [CloseEvent(command.stream), SlotReleasedEvent(command.slot), *self._next_round(command.stream)]
        match command.reason:
            case ReportedFailure(failure=FailureReply(kind=FailureKind.SOURCE)) if self._found_none():
                return []
            case KilledReason(_, WorkerDeath(place=place)) if self._options.skips and self._leave_out(place):
                return []
        number = self._epoch.number if self._epoch is not None else 0
        self._failed(error_of(command, None, skips=self._options.skips, number=number))
        return []

    def _next_round(self, stream: int) -> list[Event]:
        """The pull of the next round, unless the form of the batches is known."""
        try:
            is_open, self._is_open = self._is_open, False
            if is_open and self._look_further():
                return []
            if self.form is None:
                self.form = self._sharded.form(self._batches)
        except Misfit as misfit:
            self._failed(SpecError(f"the first examples of the shards cannot be batched: {misfit}"))
        except OptionError as error:
            self._failed(error)
        else:
            return [PullEvent(stream)] if self.form is None else []
        return []

    def _found_none(self) -> bool:
        """Handle a round without any example. Returns whether there is more to inspect, or an error to report.

        If so, the attempt is over, and the waiting threads start a new one.
        """
        if not self._options.skips and not self._raises_first and self._numbered.any_raised():
            self._raises_first, self.attempt = True, None
            return True
        return self._look_further() or self._look_from_the_start()

    def _look_from_the_start(self) -> bool:
        """Inspect the epoch from its start, in a new attempt. Returns False if it begins there."""
        assert self._epoch is not None
        if self._epoch.iteration.begin == Position(self._epoch.number):
            return False
        self.is_over, self.attempt = True, None
        return True

    def _look_further(self) -> bool:
        """Inspect more examples, in a new attempt. Returns False if there are no more."""
        if not self._may_look_further():
            return False
        self._batches, self._most = 2 * self._batches, 2 * self._most
        self.attempt = None
        return True

    def _may_look_further(self) -> bool:
        """True if there may be more examples than those inspected."""
        examples = self._numbered.examples
        return self._epoch is not None and examples is not None and len(examples.numbers) >= self._wanted()

    def _leave_out(self, place: Activity) -> bool:
        """Leave out the example that a worker died at, if it is known and the limit allows. Returns whether it is done.

        If so, the attempt is over, and the waiting threads start a new one.
        """
        if place.example is None or place.phase is not Phase.READING or (place.shard, place.example) in self._without:
            return False
        if len(self._without) >= IN_A_ROW:
            return False
        self._without.add((place.shard, place.example))
        self._sharded.forget_specs(place.shard)
        self.attempt = None
        return True

    def _failed(self, error: BaseException) -> None:
        """End the attempt with an error. The next attempt may succeed."""
        assert self.attempt is not None
        self.attempt.error, self.attempt = error, None
        self._forget()

    def _forget(self) -> None:
        self._numbered.forget()
        self._sharded.forget()
        self.form = None
        self._store.empty()
        self._is_open = self._is_stale = self._raises_first = False

    # ── the inspected epoch ──────────────────────────────────────────────────────────────────
    def supersede(self) -> bool:
        """Note that the epoch which is being inspected will not be read. Returns whether one is being inspected."""
        self.is_superseded = self._epoch is not None and self.attempt is not None and self.form is None
        if self.is_superseded and self.attempt is not None:
            self.attempt.is_void = True
        return self.is_superseded

    @property
    def epoch(self) -> Epoch | None:
        """The inspected epoch, if it will be read next."""
        return None if self.is_superseded else self._epoch

    def take_epoch(self) -> Epoch | None:
        """Hand over the inspected epoch, which is read now; None if there is none."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            epoch.opened(self._sharded.owners)
        return epoch

    def outdate(self) -> None:
        """Note that the epoch will change. If it was already inspected, its examples must be made again."""
        self._is_stale = self._epoch is not None
        if self.attempt is not None and self.form is None:
            self.attempt.is_void = True
        if self._epoch is not None and self.form is not None:
            self.is_past(self._epoch)

    def abandon(self, worker: int) -> bool:
        """Let `worker` alone read the epoch. Returns whether others had shards of it open."""
        owners = self._sharded.owners
        others = [shard for shard, owner in owners.items() if owner != worker]
        for shard in others:
            del owners[shard]
        return bool(others)

    def drop(self, epoch: Epoch) -> None:
        """Discard the inspected epoch, which is not going to be read."""
        epoch.close()
        self._sharded.owners.clear()
        self.is_past(epoch)
        self.is_superseded = self.is_over = False
        if self.form is None:
            self._forget()

    def close(self) -> None:
        """Close the store and the inbox."""
        self._store.close()
        self._inbox.close()

    def is_past(self, epoch: Epoch) -> None:
        """Discard the examples of an epoch that were made early and are no longer needed."""
        if epoch.early is not None:
            epoch.early = None
            self._store.empty()
