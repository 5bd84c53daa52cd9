"""Points at which tests make a worker fail. Selected by `STOKER_FAILPOINT`, which only tests set.

    STOKER_FAILPOINT="report:SIGKILL:/a/file/that/does/not/exist/yet"

The first worker to reach the failpoint creates the file and fails. All others, and any later worker, continue.
The way to fail is a signal name, `exit0` or `exit3` (immediately, without clean-up), or `raise`.
"""

from __future__ import annotations

import enum
import os
import signal


class Failpoint(enum.Enum):
    """The failpoints of a worker, and of the zygote."""

    FORK = "fork"  # the zygote is about to fork a worker
    FORKED = "forked"  # it has forked a worker, and the trainer does not know yet
    SPAWN = "spawn"  # the interpreter is running, nothing is loaded yet
    CLAIM = "claim"  # a task has been taken
    COPY = "copy"  # some rows are written, others are not
    REPORT = "report"  # everything is written, the reply is not sent
    REPORTED = "reported"  # the reply is sent
    TURN = "turn"  # the first task of another epoch has been taken
    SHUTDOWN = "shutdown"  # the trainer has closed the socket


_WHERE, _HOW, _ONCE = ("", "", "")
if "STOKER_FAILPOINT" in os.environ:
    _WHERE, _HOW, _ONCE = os.environ["STOKER_FAILPOINT"].split(":", 2)


def is_armed() -> bool:
    """True if a test has set a failpoint."""
    return bool(_WHERE)


def reach(place: Failpoint) -> None:
    """Fail if this is the selected failpoint and no worker has failed here yet."""
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
