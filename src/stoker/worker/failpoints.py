"""Places where tests let a worker fail: named by `STOKER_FAILPOINT`, which nothing but the tests sets.

    STOKER_FAILPOINT="report:SIGKILL:/a/file/that/does/not/exist/yet"

The worker that reaches the place first makes the file and fails; the others, and those after it, go on.
How: a signal's name, `exit0`, `exit3` (at once, without clean-up), or `raise`.
"""

from __future__ import annotations

import enum
import os
import signal


class Failpoint(enum.Enum):
    """The places."""

    SPAWN = "spawn"  # the interpreter runs, nothing is loaded yet
    CLAIM = "claim"  # a task was taken
    COPY = "copy"  # some rows are written, others not
    REPORT = "report"  # all is written, the answer is not sent
    REPORTED = "reported"  # the answer is sent
    TURN = "turn"  # the first task of another epoch was taken
    SHUTDOWN = "shutdown"  # the trainer has closed the socket


_WHERE, _HOW, _ONCE = ("", "", "")
if "STOKER_FAILPOINT" in os.environ:
    _WHERE, _HOW, _ONCE = os.environ["STOKER_FAILPOINT"].split(":", 2)


def is_armed() -> bool:
    """Whether a test lets workers fail."""
    return bool(_WHERE)


def reach(place: Failpoint) -> None:
    """Fail, if this is the place and nobody has failed here before."""
    if not _WHERE or place.value != _WHERE:
        return
    try:
        os.close(os.open(_ONCE, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if _HOW == "raise":
        raise RuntimeError(f"failpoint {_WHERE}")
    if _HOW.startswith("exit"):
        os._exit(int(_HOW.removeprefix("exit")))
    os.kill(os.getpid(), signal.Signals[_HOW])
