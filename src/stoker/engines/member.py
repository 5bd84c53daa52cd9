"""What a pool of workers knows of a Loader that it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from stoker.engines.child import WorkerProcess
from stoker.engines.line import WorkerLine


@dataclass(frozen=True)
class ProcessEnd:
    """How a worker process ended.

    Attributes:
        code: the exit code, or minus the number of the signal.
        oom_kills: out-of-memory kills in this cgroup since the last end.
    """

    code: int
    oom_kills: int


class Member(Protocol):
    """A Loader that is served by a pool. All methods are called in the pool's supervisor.

    Attributes:
        is_stopping: True once the Loader is to leave the pool.
    """

    is_stopping: bool

    @property
    def is_led(self) -> bool:
        """True while a thread that waits for a batch reads messages."""

    @property
    def is_silent(self) -> bool:
        """True if a worker has closed its socket, and its process still runs."""

    @property
    def program(self) -> int:
        """The descriptor of the program."""

    def is_owed(self) -> bool:
        """True if a worker is busy starting or with a task."""

    def connect(self, process: WorkerProcess) -> None:
        """Have the Loader served by another process too."""

    def line(self, process: WorkerProcess) -> WorkerLine | None:
        """The line to a process."""

    def listen(self, seconds: float) -> None:
        """Wait up to `seconds` for messages, and deliver them."""

    def bury(self, line: WorkerLine, end: ProcessEnd, *, elsewhere: bool) -> None:
        """Handle the end of a process. `elsewhere`: it was busy with another Loader's task."""

    def watch(self, is_behind: Callable[[WorkerLine], bool]) -> None:
        """Kill processes that make no progress, that hang after they closed their socket, or whose work is needless.

        Args:
            is_behind: returns True for a line whose process is busy with another Loader's task.
        """

    def collapsed(self, error: BaseException) -> None:
        """End the Loader with an error."""

    def hang_up(self) -> None:
        """Begin to leave: tell the workers."""

    def served(self) -> Iterable[WorkerLine]:
        """The lines to workers that may still use the Loader's memory, after `hang_up`."""

    def release(self) -> None:
        """Leave, as no worker uses the Loader's memory any more."""
