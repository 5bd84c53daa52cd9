"""Stoker keeps `model.fit()` fed: Python data code in many processes, batches in shared memory.

The way of a batch, and the map of this package:

    source ── plan ── scheduler ── engine ──── task ───────▶ worker: read → transform → collate
                          ▲                                     │ writes rows
                          │                                     ▼
       feed ◀── lease ◀── done(task) ───────────────────────── slot (shared memory)

    loader      Loader, the object a user holds: it joins the stations
    errors      the exception tree
    spec        nested structure <-> flat leaves; shapes and dtypes                 pure
    sources     WHERE examples come from
    plan        WHICH examples make WHICH batch, in which order                     pure
    scheduler   WHO does what next: events in, commands out                         pure
    dispatch    where consumers, scheduler, engine and slots meet, under one lock
    memory      WHERE a batch lies: slot, layout, lease, bundle
    worker      what runs in the child: read, seed, transform, collate, report
    engines     HOW workers run: processes, inline
    feed        towards the trainer: TensorFlow
    cli         the command `stoker`

Importing this package imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stoker.errors import (
    ClosedError,
    OptionError,
    ProgramError,
    SourceError,
    SpecError,
    StokerError,
    WorkerDied,
    WorkerError,
)

if TYPE_CHECKING:
    from stoker.loader import Loader

__all__ = [
    "ClosedError",
    "Loader",
    "OptionError",
    "ProgramError",
    "SourceError",
    "SpecError",
    "StokerError",
    "WorkerDied",
    "WorkerError",
]


def __getattr__(name: str) -> Any:
    # Workers import this package too and need no Loader: it is loaded when it is first asked for.
    if name == "Loader":
        from stoker.loader import Loader

        return Loader
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("stoker")
        except PackageNotFoundError:  # imported from a source tree that is not installed
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
