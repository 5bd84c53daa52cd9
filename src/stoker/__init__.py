"""Stoker keeps `model.fit()` fed: Python data code in many processes, batches in shared memory.

The path of a batch, and a map of this package:

    source ── plan ── scheduler ── engine ──── task ───────▶ worker: read → transform → collate
                          ▲                                     │ writes rows
                          │                                     ▼
       feed ◀── lease ◀── done(task) ───────────────────────── slot (shared memory)

    loader        Loader, the object a user holds
    pool          Pool, worker processes that several Loaders share
    keras         `ResumableData`, a callback: training that goes on where it stopped
    cli           the command `stoker`
    options       the arguments of a Loader as one value that validates itself
    build         the composition root: options -> a producer of batches
    feed          towards the trainer: TensorFlow, NumPy; one iteration, batch after batch
    coordinator   carries out what the scheduler says, under one lock
    engines       HOW workers run: processes, inline
    worker        the child process: read, seed, transform, collate, report
    epochs        what one iteration reads: the scheduler's work as requests to workers
    protocol      what crosses the socket: messages, failures, the program
    memory        WHERE a batch lies: slot, layout, lease, bundle
    sources       WHERE examples come from
    scheduler     WHO does what next: events in, commands out                        pure
    plan          WHICH examples make WHICH batch, in which order                    pure
    structure     WHAT an example and a batch look like                              pure
    pickling      the user's code and objects as bytes
    runtime       signals, locks, the interpreter's exit, limits of the system
    validation    the value of one option, checked: Python's numbers and NumPy's     pure
    insight       what training waits for: measurements and reports
    stats         what happened while batches were made, in numbers
    errors        the exception tree

Importing this package imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stoker.errors import ClosedError as ClosedError
from stoker.errors import OptionError as OptionError
from stoker.errors import ProgramError as ProgramError
from stoker.errors import SourceError as SourceError
from stoker.errors import SpecError as SpecError
from stoker.errors import StateError as StateError
from stoker.errors import StokerError as StokerError
from stoker.errors import WorkerDied as WorkerDied
from stoker.errors import WorkerError as WorkerError

if TYPE_CHECKING:
    from stoker.loader import Loader
    from stoker.plan.drawn_orders import balanced, bucketed, weighted
    from stoker.pool import Pool
    from stoker.sources.arrays import from_arrays
    from stoker.sources.generator import Shard, from_generator
    from stoker.sources.grain_dataset import from_grain
    from stoker.sources.hugging_face import from_hugging_face
    from stoker.sources.iterable import from_iterable
    from stoker.sources.markers import SKIP, Many
    from stoker.sources.tf_dataset import from_tf
    from stoker.sources.tfds_source import from_tfds
    from stoker.sources.torch_loader import from_torch
    from stoker.structure.collation import pad
    from stoker.worker.user_code.current import current

__all__ = [
    "SKIP",
    "Loader",
    "Many",
    "Pool",
    "Shard",
    "StokerError",
    "WorkerError",
    "balanced",
    "bucketed",
    "current",
    "from_arrays",
    "from_generator",
    "from_grain",
    "from_hugging_face",
    "from_iterable",
    "from_tf",
    "from_tfds",
    "from_torch",
    "pad",
    "weighted",
]

#: The home module of each lazily loaded public name. Workers import this package too and need few of these names, so
#: each is loaded on first access. All errors of `stoker.errors` are available here as well.
_HOMES = {
    "Loader": "stoker.loader",
    "Pool": "stoker.pool",
    "pad": "stoker.structure.collation",
    "from_arrays": "stoker.sources.arrays",
    "from_iterable": "stoker.sources.iterable",
    "from_generator": "stoker.sources.generator",
    "from_hugging_face": "stoker.sources.hugging_face",
    "from_grain": "stoker.sources.grain_dataset",
    "from_tfds": "stoker.sources.tfds_source",
    "from_tf": "stoker.sources.tf_dataset",
    "from_torch": "stoker.sources.torch_loader",
    "Shard": "stoker.sources.generator",
    "SKIP": "stoker.sources.markers",
    "current": "stoker.worker.user_code.current",
    "Many": "stoker.sources.markers",
    "weighted": "stoker.plan.drawn_orders",
    "balanced": "stoker.plan.drawn_orders",
    "bucketed": "stoker.plan.drawn_orders",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("stoker")
        except PackageNotFoundError:  # imported from a source tree that is not installed
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
