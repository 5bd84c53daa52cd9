"""The `Engine` protocol: how workers are run, whoever runs them; and what an engine tells its listener."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stoker.memory.progress_page import Activity
from stoker.protocol.replies import (
    DescribedReply,
    ExamplesMadeReply,
    FailureReply,
    ReadyReply,
    ShardOpenedReply,
    TaskDoneReply,
)
from stoker.protocol.requests import FormRequest, LeaveEpochRequest, Request, UpdateRequest
from stoker.runtime.locks import Lock
from stoker.scheduler.work import FailureReason

#: The workers of the inline engine: the thread that pulls, and one for what TensorFlow's threads pull.
HERE, APART = 0, 1

Answer = ReadyReply | ExamplesMadeReply | ShardOpenedReply | DescribedReply | TaskDoneReply | FailureReply


@dataclass(frozen=True)
class WorkerDeath(FailureReason):
    """How a worker process ended.

    Attributes:
        code: its exit code, or minus the signal's number.
        place: what it was at.
        stuck: None, or what was seen before it was killed because it made no progress.
        oom_kills: how often the kernel killed a process of this cgroup for want of memory since the last death.
    """

    worker: int
    code: int
    place: Activity
    stuck: StuckWorker | None = None
    oom_kills: int = 0


@dataclass(frozen=True)
class StuckWorker:
    """A worker that makes no progress.

    Attributes:
        seconds: for how long.
        place: what it is at.
        stack: its Python stacks, or why there is none.
        killed: whether it is killed for that.
    """

    worker: int
    seconds: float
    place: Activity
    stack: str
    killed: bool


class Listener(Protocol):
    """Whom an engine tells. Called from the engine's thread, or from the pulling one for `inline`."""

    def heard(self, worker: int, answers: Sequence[Answer]) -> None:
        """A worker sent messages."""

    def died(self, death: WorkerDeath) -> None:
        """A worker's exit is confirmed, and all that it had sent was heard."""

    def stuck(self, stuck: StuckWorker) -> None:
        """A worker makes no progress."""

    def is_needless(self, worker: int) -> bool:
        """Whether nobody needs any more what a worker is at."""

    def collapsed(self, error: BaseException) -> None:
        """The engine itself failed and runs no worker any more."""


class Engine(Protocol):
    """Runs workers 0 … n-1.

    `start` comes first and once, then `submit`, `respawn` and `idle` in any order, `stop` last
    and as often as one likes. `submit` and `respawn` are called under the producer's lock.
    """

    def start(self, listener: Listener) -> None:
        """Bring all workers up, without waiting for them; each says `ReadyReply`."""

    def submit(self, worker: int, message: Request) -> None:
        """Give a worker its next task; it answers in the order of the tasks. Sent with the next `flush`."""

    def flush(self) -> None:
        """Send what was submitted: several tasks for one worker wake it once."""

    def tell(self, known: FormRequest) -> None:
        """Let every worker, also those to come, know the form of the batches before its next task."""

    def leave(self, leave: LeaveEpochRequest) -> None:
        """Let every worker close the shards of an epoch that nobody reads any more."""

    def renew(self, renew: UpdateRequest) -> None:
        """Let every worker, also those to come, know what `Loader.update` gave, before its next task."""

    def respawn(self, worker: int) -> None:
        """Start a new process in the place of one that died. Called from within `Listener.died`."""

    def idle(self, changed: Lock) -> None:
        """What a pulling thread does while its batch is not ready: at most 0.1 s, or a task; `changed` is held."""

    def stand_by(self, changed: Lock) -> None:
        """`idle` for a thread that must run no code of the user's."""

    def nudge(self) -> None:
        """Wake the thread that is in `idle`, if it is another one: what it waits for may be there."""

    def request_stop(self) -> None:
        """Ask for the end without waiting and without a lock: for finalizers."""

    def stop(self) -> None:
        """End all workers; returns when none is left, within 2 s."""
