"""Finds the example at fault when workers die or when repeated work gives a different result."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from itertools import zip_longest

from stoker.coordinator.consumer_errors import ReportedFailure
from stoker.coordinator.counters import Counters
from stoker.engines.deaths import how
from stoker.engines.engine import WorkerDeath
from stoker.epochs.epoch import Epoch
from stoker.memory.progress_page import Activity, Phase
from stoker.plan.permutation import mix
from stoker.protocol.replies import WHOLE, FailureKind, FailureReply, TaskDoneReply
from stoker.scheduler.events import TaskFailedEvent, WorkerDiedEvent
from stoker.scheduler.work import FailureReason, IndexWork, ShardWork, Task, TrialWork, is_apart
from stoker.stats import Skipped

#: Consecutive examples that kill workers, with no task done in between, after which no more are left out.
IN_A_ROW = 10
#: Digests of outputs, each paired with the number of its example: (example, digest).
Digests = tuple[tuple[int, int], ...]


class Faults:
    """Assigns deaths and differing results to examples, and leaves examples out. Used under the producer's lock.

    Args:
        tasks: the tasks that workers hold, by number.
        epochs: the epochs that are being read, by stream.
        counters: counts examples that are left out.
        verify: share of tasks that are done twice, to compare the results.
    """

    def __init__(
        self, tasks: Mapping[int, Task], epochs: Mapping[int, Epoch], counters: Counters, verify: float
    ) -> None:
        self._tasks, self._epochs, self._counters, self._verify = tasks, epochs, counters, verify
        self._left_out_in_a_row = 0
        #: The stream and the digests of the first run, for tasks that are done twice.
        self._digests: dict[int, tuple[int, Digests]] = {}

    # ── deaths ───────────────────────────────────────────────────────────────────────────────
    def died(self, death: WorkerDeath) -> WorkerDiedEvent:
        """The event for the scheduler about a death, with the row that the worker was making, if it is known."""
        place, row = death.place, None
        task = self._tasks.get(place.task)
        epoch = self._epochs.get(task.stream) if task is not None else None
        if task is not None and epoch is not None and place.example is not None and isinstance(task.work, IndexWork):
            row = epoch.row(task.work, place.example)
        # Skippable only if user code was making one example, not if a generator was advancing to its next.
        skippable = place.example is not None and place.phase is Phase.READING and self.may_leave_out()
        if skippable and task is not None and epoch is not None and isinstance(task.work, ShardWork):
            assert place.example is not None
            skippable = not epoch.is_left_out(epoch.shard_of(task.work), place.example)
        killed = death.stuck is None and -death.code in (signal.SIGKILL, signal.SIGTERM)
        return WorkerDiedEvent(
            worker=death.worker,
            reason=death,
            task=place.task,
            row=row,
            example=place.example,
            skippable=skippable,
            killed=killed,
            elsewhere=death.elsewhere,
        )

    def epoch_at(self, place: Activity) -> int | None:
        """The number of the epoch that a worker is at work for; None if there is none."""
        task = self._tasks.get(place.task)
        epoch = self._epochs.get(task.stream) if task is not None else None
        return None if epoch is None else epoch.number

    def described(self, place: Activity) -> str:
        """A description of what a worker is working on."""
        task = self._tasks.get(place.task)
        epoch = self._epochs.get(task.stream) if task is not None else None
        if place.example is not None:
            where = f"shard {place.shard}, " if place.shard is not None else ""
            return f"{where}example {place.example}" + (f" of epoch {epoch.number}" if epoch is not None else "")
        if task is None or epoch is None:
            return "the first examples" if task is not None else "no example"
        return f"{epoch.description(task.work)} of epoch {epoch.number}"

    def leave_out(self, task: Task, row: int | None, death: FailureReason) -> None:
        """Leave out the example in row `row` of a task or, for a shard, the example that its worker died at."""
        epoch, work = self._epochs[task.stream], task.work
        assert isinstance(death, WorkerDeath)
        if isinstance(work, ShardWork):
            shard, example = epoch.shard_of(work), death.place.example
        else:
            assert isinstance(work, IndexWork)
            shard, example = None, None if row is None else epoch.example(work, row)
        assert example is not None
        self._left_out_in_a_row += 1
        if epoch.leave_out(shard, example):
            reason = f"workers died at it; the last one {how(death)}"
            self._counters.skipped([Skipped(epoch.number, shard, example, reason)], 1)

    def task_done(self) -> None:
        """Note that a task was done, which ends a run of deaths."""
        self._left_out_in_a_row = 0

    def may_leave_out(self) -> bool:
        """True if another example may be left out. If all examples kill workers, an error must end the deaths."""
        return self._left_out_in_a_row < IN_A_ROW

    # ── repeated work ────────────────────────────────────────────────────────────────────────
    def is_compared(self, task: Task, epoch: Epoch) -> bool:
        """True if the rows of a task are to be made twice, or are now being made for the second time."""
        work = task.work
        if isinstance(work, TrialWork | ShardWork) and work.of is not None:
            return True
        if not self._verify or is_apart(work):
            return False
        if isinstance(work, ShardWork):
            return not work.again and self._is_drawn(epoch.number, task.id)
        return isinstance(work, IndexWork) and self._is_drawn(epoch.number, work.batch, work.first)

    def _is_drawn(self, *described: int) -> bool:
        return mix(*described, 7) < self._verify * 2**64

    def to_be_done_again(self, task: Task, reply: TaskDoneReply) -> bool:
        """Keep the digests of a finished task that is to be repeated. Returns whether it is."""
        if not reply.digests or not isinstance(task.work, IndexWork | ShardWork) or is_apart(task.work):
            return False
        self._digests[reply.task] = task.stream, reply.digests
        return True

    def differs(self, worker: int, reply: TaskDoneReply) -> TaskFailedEvent | None:
        """The failure of a repeated task, if its result differs from the first; otherwise None."""
        task = self._tasks[reply.task]
        work = task.work
        if not isinstance(work, TrialWork | ShardWork) or work.of is None or work.of not in self._digests:
            return None
        _, before = self._digests.pop(work.of)
        example = _first_that_differs(before, reply.digests)
        if example is None:
            return None
        shard = None
        if isinstance(work, ShardWork):
            shard = self._epochs[task.stream].shard_of(work)
        is_batch = example == WHOLE
        others = "" if is_batch or reply.together == 1 else f" (or one of the {reply.together - 1:,} after it)"
        named = None if is_batch else example
        failure = FailureReply(reply.task, FailureKind.DIFFERS, others, example=named, shard=shard)
        return TaskFailedEvent(worker, reply.task, ReportedFailure(worker, failure))

    def forget(self, stream: int) -> None:
        """Discard the digests of a stream that is no longer read."""
        self._digests = {task: kept for task, kept in self._digests.items() if kept[0] != stream}


def _first_that_differs(before: Digests, now: Digests) -> int | None:
    """The first example whose result differs or that occurs only once; None if there is none."""
    for pair in zip_longest(before, now):
        if pair[0] != pair[1]:
            return min(one[0] for one in pair if one is not None)
    return None
