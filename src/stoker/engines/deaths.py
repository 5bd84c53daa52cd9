"""Error messages for the deaths of workers."""

from __future__ import annotations

import signal

from stoker.engines.engine import WorkerDeath
from stoker.errors import WorkerDied, bounded
from stoker.scheduler.work import FailureReason

#: The most lines and characters of a stack in a message.
_LINES, _CHARACTERS = 32, 10_000
_HINTS = {
    "SIGKILL": " (often the kernel, out of memory)",
    "SIGSEGV": " (a crash in native code)",
    "SIGBUS": " (a crash in native code, or memory that could not be allocated)",
}


def died_at_work(
    death: WorkerDeath, examples: str, example: int | None, epoch: int, batch: int, *, skips: bool
) -> WorkerDied:
    """The error for `examples` (a description) at which one worker after the other died.

    `death` is the last death. `skips` is True if such examples are left out where possible.
    """
    skip = "" if skips else '; `on_error="skip"` leaves out such examples'
    stack = f"\n\n{_bounded(death.stuck.stack)}" if death.stuck is not None else ""
    return WorkerDied(
        f"workers died repeatedly while making {examples} (epoch {epoch}, batch {batch}): the last one {how(death)}. "
        f"`workers=0` runs the same code in this process, where debuggers work{skip}.{stack}",
        example=example,
        epoch=epoch,
        worker=death.worker,
    )


def _bounded(stack: str) -> str:
    """The stack, shortened, with the current thread first because it runs the user's code."""
    threads = sorted(stack.split("\n\n"), key=lambda thread: not thread.startswith("Current thread"))
    return bounded("\n\n".join(threads), _LINES, _CHARACTERS)


def died_at_start(reason: FailureReason) -> WorkerDied:
    """The error if no worker lives long enough to take a task; `reason` is the last failure or `WorkerDeath`."""
    ended = how(reason) if isinstance(reason, WorkerDeath) else f"failed: {reason}"
    hint = " See stderr for its last output, if any." if isinstance(reason, WorkerDeath) and reason.code > 0 else ""
    return WorkerDied(f"no worker process starts: the last one {ended} before it was ready.{hint}")


def how(death: WorkerDeath) -> str:
    """A description of how a process ended."""
    if death.stuck is not None:
        return f"made no progress for {death.stuck.seconds:.1f} s (timeout) and was killed"
    if not death.code and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        return "ended (how is unknown: this process ignores SIGCHLD)"
    if death.code >= 0:
        return f"exited with code {death.code}"
    number = -death.code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    hint = _HINTS.get(name, "")
    if death.oom_kills > 0:
        hint = f"; the kernel's out-of-memory counter of this cgroup rose by {death.oom_kills}"
    return f"was killed by {name}{hint}"
