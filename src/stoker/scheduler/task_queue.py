"""Tasks that wait for a worker, tasks that workers hold, and who gets which."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable

from stoker.scheduler.commands import SubmitCommand
from stoker.scheduler.in_flight import TaskInFlight
from stoker.scheduler.streams import BatchInMaking, ShardState, Stream
from stoker.scheduler.work import ShardWork, Task, TrialWork, Work, is_apart


class TaskQueue:
    """The tasks in flight.

    Args:
        workers: number of workers that are wanted, up or not.
        bound: the worker that makes all of a given stream; None if any worker may.

    Attributes:
        workers: number of workers that are wanted. Others that are still up get no tasks but those of their shards.
        up: the tasks that each live worker holds, the oldest first.
    """

    def __init__(self, workers: int, bound: Callable[[int], int] | None) -> None:
        self.workers, self._bound = workers, bound
        self._waiting: deque[TaskInFlight] = deque()
        self.up: dict[int, deque[TaskInFlight]] = {}
        self._next_task = 0

    # ── waiting tasks ────────────────────────────────────────────────────────────────────────
    def add(self, batch: BatchInMaking, slot: int, works: Iterable[Work]) -> None:
        """Add the tasks of a batch that is begun in `slot`."""
        for work in works:
            self._waiting.append(TaskInFlight(Task(self._next_task, batch.stream, slot, work), batch))
            self._next_task += 1

    def add_first(self, held: TaskInFlight) -> None:
        """Put a task before all others: it was begun before them."""
        self._waiting.appendleft(held)

    def make(self, held: TaskInFlight, work: TrialWork | ShardWork) -> Task:
        """A new task for the same stream and slot as `held`."""
        self._next_task += 1
        return Task(self._next_task - 1, held.task.stream, held.task.slot, work)

    def are_waiting(self) -> bool:
        """True if any task waits."""
        return bool(self._waiting)

    def is_waiting(self, batch: BatchInMaking) -> bool:
        """True if a task of the batch waits."""
        return any(held.batch is batch for held in self._waiting)

    def withdraw(self, batch: BatchInMaking, first: int = 0) -> None:
        """Remove the waiting tasks of a batch from row `first` on."""
        self._waiting = deque(held for held in self._waiting if held.batch is not batch or held.first < first)

    # ── tasks of workers ─────────────────────────────────────────────────────────────────────
    def pop(self, worker: int, task: int) -> TaskInFlight:
        """Remove and return the oldest task of `worker`, which has just finished or failed."""
        held = self.up[worker].popleft()
        if held.task.id != task:
            raise AssertionError(f"worker {worker} reported task {task} while it held {held.task}")
        return held

    def submit(self, streams: Collection[Stream], depth: int) -> list[SubmitCommand]:
        """Give waiting tasks, in order, to workers that hold fewer than `depth`. `streams`: all open streams."""
        submitted: list[SubmitCommand] = []
        if not self._waiting or not self.up:
            return submitted
        waiting: deque[TaskInFlight] = deque()
        behind: set[ShardState] = set()  # shards with an earlier task that is still waiting
        while self._waiting:
            entry = self._waiting.popleft()
            shard = None if is_apart(entry.task.work) else entry.batch.shard
            is_late = shard is not None and (shard in behind or shard.on_trial)
            worker = None if is_late else self._worker_for(entry, shard, streams, depth)
            if worker is None:
                waiting.append(entry)
                if shard is not None:
                    behind.add(shard)
                if shard is not None or self._bound is not None:
                    continue
                break
            opens = shard is not None and shard.owner is None
            if shard is not None:
                shard.owner = worker
            entry.batch.writers += 1
            self.up[worker].append(entry)
            submitted.append(SubmitCommand(worker, entry.task, opens))
        self._waiting.extendleft(reversed(waiting))
        return submitted

    def _worker_for(
        self, entry: TaskInFlight, shard: ShardState | None, streams: Collection[Stream], depth: int
    ) -> int | None:
        """The worker that takes the next task, or None while that worker holds enough tasks.

        A shard stays with the worker that has it open. A comparison goes to another worker than made the rows first.
        """
        but, depth = entry.made_by, 1 if entry.batch.spread else depth
        worker: int | None
        if self._bound is not None:
            worker = self._bound(entry.task.stream)
            return worker if worker in self.up and len(self.up[worker]) < depth else None
        wanted = self._wanted_up()
        if shard is not None and shard.owner is not None:
            worker = shard.owner
        elif not wanted or (shard is None and but is not None and self.workers > 1 and wanted == [but]):
            return None
        elif shard is None:
            worker = min(wanted, key=lambda worker: (worker == but, len(self.up[worker])))
        else:
            worker = self._opener(wanted, shard, streams)
        return worker if worker is not None and len(self.up[worker]) < depth else None

    def _wanted_up(self) -> list[int]:
        """The workers that are up and wanted."""
        return [worker for worker in self.up if worker < self.workers]

    def unwanted(self, streams: Collection[Stream]) -> list[int]:
        """The workers that are up but not wanted, and hold no task and no shard."""
        idle = [worker for worker, tasks in self.up.items() if worker >= self.workers and not tasks]
        owners = {shard.owner for stream in streams for shard in stream.shards()} if idle else set()
        return [worker for worker in idle if worker not in owners]

    def _opener(self, wanted: list[int], shard: ShardState, streams: Collection[Stream]) -> int | None:
        """The worker that opens a shard: the one of those `wanted` with the fewest shards.

        None if that has its share of them. No worker gets more, even while the others are still starting.
        """
        owners = [one.owner for stream in streams for one in stream.shards() if not one.ended]
        owned = Counter(owner for owner in owners if owner is not None)
        worker = min(wanted, key=lambda worker: (owned[worker], len(self.up[worker])))
        if not shard.ended and owned[worker] >= math.ceil(len(owners) / self.workers):
            return None
        return worker
