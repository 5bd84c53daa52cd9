"""The end of a Loader's time in a pool, whose workers may go on for other Loaders."""

from __future__ import annotations

import signal
import time

from stoker.engines.member import Member

#: Seconds that a worker has to finish its task, and then to end after each signal.
_GRACE = 0.5


class Departure:
    """Asks the workers to release a Loader's memory, and ends those that do not, as they are busy with its task.

    A worker that is busy with the task of another Loader is not waited for. It releases the memory after that task, and
    takes no more of this Loader's.

    Args:
        member: the Loader, which is closed.
    """

    def __init__(self, member: Member) -> None:
        self._member, self._signals = member, [signal.SIGTERM, signal.SIGKILL]
        self._deadline = time.monotonic() + _GRACE
        member.hang_up()

    def is_over(self) -> bool:
        """True once no worker is busy with the Loader. Call it again until then."""
        lines = list(self._member.served())
        if not lines or time.monotonic() < self._deadline:
            return not lines
        busy = [line for line in lines if line.is_busy]
        number = self._signals.pop(0) if self._signals else None
        for line in busy:
            if number is not None:
                line.process.is_given_up = True
                line.process.signal(number)
        self._deadline = time.monotonic() + _GRACE
        return not busy
