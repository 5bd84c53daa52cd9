"""The `Engine` protocol for running workers, and the events that an engine reports to its listener."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stoker.memory.progress_page import Activity
from stoker.memory.worker_times import WorkerTimes
from stoker.protocol.replies import Reply
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.runtime.locks import Lock
from stoker.scheduler.work import FailureReason

#: The workers of the inline engine: the pulling thread, and a thread that serves the pulls of TensorFlow's threads.
HERE, APART = 0, 1


@dataclass(frozen=True)
class WorkerDeath(FailureReason):
    """How a worker process ended.

    Attributes:
        code: the exit code, or minus the number of the signal.
        place: what the worker was doing.
        stuck: the observation if the worker was killed for making no progress, else None.
        oom_kills: out-of-memory kills in this cgroup since the last death.
        elsewhere: True if the process was busy with another Loader's task, so that this Loader's did not kill it.
    """

    worker: int
    code: int
    place: Activity
    stuck: StuckWorker | None = None
    oom_kills: int = 0
    elsewhere: bool = False


@dataclass(frozen=True)
class StuckWorker:
    """A worker that makes no progress.

    Attributes:
        seconds: how long it has made no progress.
        place: what the worker is doing.
        stack: its Python stacks, or the reason why there are none.
        killed: True if the worker is killed for it.
    """

    worker: int
    seconds: float
    place: Activity
    stack: str
    killed: bool


class Listener(Protocol):
    """Receives the events of an engine, in its thread or in a thread that waits for a batch."""

    def heard(self, worker: int, replies: Sequence[Reply]) -> None:
        """A worker sent replies."""

    def died(self, death: WorkerDeath) -> None:
        """A worker has exited, and all its messages have been delivered."""

    def stuck(self, stuck: StuckWorker) -> None:
        """A worker makes no progress."""

    def is_needless(self, worker: int) -> bool:
        """True if the worker's current task is no longer needed."""

    def collapsed(self, error: BaseException) -> None:
        """The engine itself failed and no longer runs any workers."""


class Engine(Protocol):
    """Runs workers 0 … n-1.

    Call `start` first, once; then `submit`, `start_worker`, `retire_worker` and `idle` in any order; then `stop`, which
    may be repeated. All but `start`, `request_stop` and `stop` are called under the producer's lock.
    """

    def start(self, listener: Listener) -> None:
        """Start all workers without waiting for them; each sends a `ReadyReply` when it is up."""

    def submit(self, worker: int, message: Request) -> None:
        """Queue a worker's next task, to be sent with the next `flush`. A worker does its tasks in order."""

    def flush(self) -> None:
        """Send all submitted tasks. Several tasks for one worker wake it only once."""

    def send_form(self, form: FormRequest) -> None:
        """Give every worker, including future ones, the form of the batches before its next task."""

    def leave(self, leave: LeaveEpochRequest) -> None:
        """Make every worker close the shards of an epoch that is no longer read."""

    def send_update(self, update: UpdateRequest) -> None:
        """Give every worker, including future ones, the values of `Loader.update` before its next task."""

    def times(self) -> dict[int, WorkerTimes]:
        """What the time of each worker went to, by its number; with that of the processes before it."""

    def start_worker(self, worker: int) -> None:
        """Start the process of a worker: an additional one, or in place of one that died."""

    def retire_worker(self, worker: int) -> None:
        """Let a worker that has no task end. Its end is reported as a death."""

    def idle(self, changed: Lock) -> None:
        """Use the time while the batch of a pulling thread is not ready, for at most 0.1 s or one task.

        The caller holds `changed`.
        """

    def stand_by(self, changed: Lock) -> None:
        """Like `idle`, for a thread that must not run the user's code."""

    def nudge(self) -> None:
        """Wake the thread that is in `idle`, if it is another one: its batch may be ready."""

    def request_stop(self) -> None:
        """Request the end, without waiting and without a lock, so that finalizers can call it."""

    def stop(self) -> None:
        """End all workers. Returns when none is left, within 2 s."""
