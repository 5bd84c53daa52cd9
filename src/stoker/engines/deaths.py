"""How the death of workers is told to the user."""

from __future__ import annotations

import signal

from stoker.engines import Death
from stoker.errors import WorkerDied
from stoker.scheduler import RETRIES

_HINTS = {
    "SIGKILL": " (often the kernel, out of memory)",
    "SIGSEGV": " (a crash in native code)",
    "SIGBUS": " (a crash in native code, or memory that could not be had)",
}


def died_at_work(death: Death, examples: str, epoch: int, batch: int) -> WorkerDied:
    """The error for `examples`, in words, at which one worker after the other died; `death` is the last one's."""
    number = examples.removeprefix("example ")
    return WorkerDied(
        f"{RETRIES + 1} workers died one after the other while they held {examples} "
        f"(epoch {epoch}, batch {batch}): the last one {_how(death)}. `workers=0` runs the same code in "
        "this process, where a debugger can see it.",
        example=int(number) if number.isdigit() else None,
        epoch=epoch,
        worker=death.worker,
    )


def died_at_start(reason: object) -> WorkerDied:
    """The error when no worker lives long enough to take a task; `reason` is the last one's `Death`."""
    how = _how(reason) if isinstance(reason, Death) else f"failed: {reason}"
    return WorkerDied(f"no worker process comes up: the last one {how} before it was ready.")


def _how(death: Death) -> str:
    """How a process ended, in words."""
    if death.code >= 0:
        return f"exited with code {death.code}"
    number = -death.code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"was killed by {name}{_HINTS.get(name, '')}"
