"""Stoker keeps `model.fit()` fed: Python data code in many processes, batches in shared memory.

The way of a batch, and the map of this package:

    source ── plan ── scheduler ── engine ──── task ───────▶ worker: read → transform → collate
                          ▲                                     │ writes rows
                          │                                     ▼
       feed ◀── lease ◀── done(task) ───────────────────────── slot (shared memory)

    loader      Loader, the object a user holds: it joins the stations
    batches     one iteration of it, batch after batch
    stats       what happened while it was read, in numbers
    errors      the exception tree
    interrupts  Ctrl-C and other signals at a moment when nothing is half done
    locks       a lock under which no handler of a signal and no garbage collection begins
    lists       which lists are arrays, and which are containers                    pure
    values      what may stand at a leaf, in one of three forms                     pure
    casting     numbers of one dtype as those of another                            pure
    foreign     tensors of PyTorch and sparse arrays of JAX as arrays of NumPy        pure
    spec        nested structure <-> flat leaves; shapes and dtypes                 pure
    collation   how examples become a batch: stack, pad, ragged                     pure
    sources     WHERE examples come from
    plan        WHICH examples make WHICH batch, in which order                     pure
    scheduler   WHO does what next: events in, commands out                         pure
    options     the value of one option, checked: numbers of Python and NumPy alike      pure
    stations    options, checked, and the stations that follow from them
    epochs      what one iteration reads: a kind of epoch for each kind of source
    journal     where training stands: which iteration is read, and how much of it was taken
    dispatch    where consumers, scheduler, engine and slots meet, under one lock
    travel      WHAT of the user's code travels by value
    memory      WHERE a batch lies: slot, layout, lease, bundle
    worker      what runs in the child: read, seed, transform, collate, report
    engines     HOW workers run: processes, inline
    feed        towards the trainer: TensorFlow, NumPy; going on where training stopped
    keras       what is for `keras.Model.fit`: ResumableData
    cli         the command `stoker`

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
    from stoker.sources.arrays import from_arrays
    from stoker.sources.generator import Shard, from_generator
    from stoker.sources.iterable import from_iterable
    from stoker.sources.markers import SKIP, Many
    from stoker.structure.collation import pad
    from stoker.worker.user_code.current import current

__all__ = [
    "SKIP",
    "Loader",
    "Many",
    "Shard",
    "StokerError",
    "WorkerError",
    "current",
    "from_arrays",
    "from_generator",
    "from_iterable",
    "pad",
]

#: Where the other public names come from. Workers import this package too and need few of them: they are loaded when
#: they are first asked for. All errors of `stoker.errors` can be had here as well.
_HOMES = {
    "Loader": "stoker.loader",
    "pad": "stoker.structure.collation",
    "from_arrays": "stoker.sources.arrays",
    "from_iterable": "stoker.sources.iterable",
    "from_generator": "stoker.sources.generator",
    "Shard": "stoker.sources.generator",
    "SKIP": "stoker.sources.markers",
    "current": "stoker.worker.user_code.current",
    "Many": "stoker.sources.markers",
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
