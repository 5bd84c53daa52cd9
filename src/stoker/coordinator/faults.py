"""Which example is at fault, where workers die or the same work comes out differently."""

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

#: Examples that kill workers, one after the other, with nothing done in between: no more are left out.
IN_A_ROW = 10
#: Of outputs, each behind the number of its example.
Digests = tuple[tuple[int, int], ...]


class Faults:
    """Used under the producer's lock.

    Args:
        tasks: those that workers have, by number.
        epochs: those that are read, by stream.
        counters: counts what is left out.
        verify: the share of tasks that are done twice, to see whether the same comes out.
    """

    def __init__(
        self, tasks: Mapping[int, Task], epochs: Mapping[int, Epoch], counters: Counters, verify: float
    ) -> None:
        self._tasks, self._epochs, self._counters, self._verify = tasks, epochs, counters, verify
        self._left_out_in_a_row = 0
        #: Of tasks that are done twice: their stream, and what came out.
        self._digests: dict[int, tuple[int, Digests]] = {}

    # ── deaths ───────────────────────────────────────────────────────────────────────────────
    def died(self, death: WorkerDeath) -> WorkerDiedEvent:
        """What the scheduler is told of a death: with the row that the worker was at, where that is known."""
        place, row = death.place, None
        task = self._tasks.get(place.task)
        epoch = self._epochs.get(task.stream) if task is not None else None
        if task is not None and epoch is not None and place.example is not None and isinstance(task.work, IndexWork):
            row = epoch.row(task.work, place.example)
        # It can be left out where user code made one example; not where a generator was on its way to its next.
        skippable = place.example is not None and place.phase is Phase.READING and self.may_leave_out()
        if skippable and task is not None and epoch is not None and isinstance(task.work, ShardWork):
            assert place.example is not None
            skippable = not epoch.is_left_out(epoch.shard_of(task.work), place.example)
        killed = death.stuck is None and -death.code in (signal.SIGKILL, signal.SIGTERM)
        return WorkerDiedEvent(death.worker, death, place.task, row, place.example, skippable, killed)

    def words(self, place: Activity) -> str:
        """What a worker is at, in words."""
        task = self._tasks.get(place.task)
        epoch = self._epochs.get(task.stream) if task is not None else None
        if place.example is not None:
            where = f"shard {place.shard}, " if place.shard is not None else ""
            return f"{where}example {place.example}" + (f" of epoch {epoch.number}" if epoch is not None else "")
        if task is None or epoch is None:
            return "the first examples" if task is not None else "no example"
        return f"{epoch.examples(task.work)} of epoch {epoch.number}"

    def leave_out(self, task: Task, row: int | None, death: FailureReason) -> None:
        """Leave out the example in this row of a task, or the one of a shard that a worker died at."""
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
            reason = f"its workers died: the last one {how(death)}"
            self._counters.skipped([Skipped(epoch.number, shard, example, reason)], 1)

    def all_is_well(self) -> None:
        """A task was done."""
        self._left_out_in_a_row = 0

    def may_leave_out(self) -> bool:
        """Whether one more example may be left out: when all of them kill, an error ends the storm."""
        return self._left_out_in_a_row < IN_A_ROW

    # ── work that is done twice ──────────────────────────────────────────────────────────────
    def is_compared(self, task: Task, epoch: Epoch) -> bool:
        """Whether the rows of a task are made twice, or are so for the second time."""
        work = task.work
        if isinstance(work, TrialWork | ShardWork) and work.of is not None:
            return True
        if not self._verify or is_apart(work):
            return False
        if isinstance(work, ShardWork):
            return not work.again and self._is_drawn(epoch.number, task.id)
        return isinstance(work, IndexWork) and self._is_drawn(epoch.number, work.batch, work.first)

    def _is_drawn(self, *words: int) -> bool:
        return mix(*words, 7) < self._verify * 2**64

    def to_be_done_again(self, task: Task, answer: TaskDoneReply) -> bool:
        """Whether a task that is done is to be done a second time; what came out is kept until then."""
        if not answer.digests or not isinstance(task.work, IndexWork | ShardWork) or is_apart(task.work):
            return False
        self._digests[answer.task] = task.stream, answer.digests
        return True

    def differs(self, worker: int, answer: TaskDoneReply) -> TaskFailedEvent | None:
        """The failure of a task that was done a second time, if something else came out."""
        task = self._tasks[answer.task]
        work = task.work
        if not isinstance(work, TrialWork | ShardWork) or work.of is None or work.of not in self._digests:
            return None
        _, before = self._digests.pop(work.of)
        example = _first_that_differs(before, answer.digests)
        if example is None:
            return None
        shard = None
        if isinstance(work, ShardWork):
            shard = self._epochs[task.stream].shard_of(work)
        is_batch = example == WHOLE
        others = "" if is_batch or answer.together == 1 else f" (or one of the {answer.together - 1:,} after it)"
        named = None if is_batch else example
        failure = FailureReply(answer.task, FailureKind.DIFFERS, others, example=named, shard=shard)
        return TaskFailedEvent(worker, answer.task, ReportedFailure(worker, failure))

    def forget(self, stream: int) -> None:
        """Nobody reads this stream any more."""
        self._digests = {task: kept for task, kept in self._digests.items() if kept[0] != stream}


def _first_that_differs(before: Digests, now: Digests) -> int | None:
    """The first example that came out differently, or only once; None if there is none."""
    for pair in zip_longest(before, now):
        if pair[0] != pair[1]:
            return min(one[0] for one in pair if one is not None)
    return None
