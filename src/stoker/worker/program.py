"""What a worker runs, and how it gets there: the user's source and transform, pickled once.

The pickle's large buffers (arrays) are left out of it and written beside it, so that all
workers map the same read-only pages.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import mmap
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.collation import Collation
from stoker.errors import ProgramError, cause, summary
from stoker.memory import Memfd, open_bundle, write_bundle
from stoker.worker.libraries import came_with_program, is_held, reduced

if TYPE_CHECKING:
    from stoker.worker.libraries import Held


@dataclass(frozen=True)
class Program:
    """The user's code and what is needed to run it.

    Attributes:
        source: the map-style source, a `ShardedSource`, or None for items that the trainer sends.
        transform: called with each example, or None.
        wants_rng: whether `transform` takes an argument `rng`.
        seed: the Loader's seed.
        length: examples in a map-style source, as the plan counts on; else None.
        batch_size: rows of a full batch.
        collation: how examples are joined.
        shuffle: size of the buffer through which each shard is read, or 0.
        memory_limit: bytes that all slots together may take.
        skips: whether examples that raise are left out.
        seeds_globals: whether global random states are set before each example.
        weighs: whether each example gets a `sample_weight`.
    """

    source: Any
    transform: Callable[..., Any] | None
    wants_rng: bool
    seed: int
    length: int | None
    batch_size: int
    collation: Collation
    shuffle: int
    memory_limit: int
    skips: bool = False
    seeds_globals: bool = True
    weighs: bool = False


def dump(program: Program) -> Memfd:
    """Write the program to shared memory. Raises `ProgramError`."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        pickled = _pickled(program, buffers)
    except Exception as error:
        from stoker.worker.unpicklable import culprit

        parts = {"source": program.source, "transform": program.transform, "collate": program.collation.function}
        try:
            path, reason = culprit(parts, error)
        except Exception:  # an attribute of the user's that raises when it is looked at: tell what is known
            path, reason = "source or transform", summary(error)
        raise ProgramError(
            f"{path} cannot be sent to a worker process: {reason}. Open it inside `__getitem__` on first use, "
            "or drop it in `__getstate__`; `workers=0` runs without sending anything."
        ) from cause(error)
    place = {"path": [path for path in sys.path if isinstance(path, str)], "cwd": _cwd(), "argv": sys.argv}
    return write_bundle([json.dumps(place).encode(), pickled, *(buffer.raw() for buffer in buffers)])


def takes_rng(function: Callable[..., Any] | None) -> bool:
    """Whether a function of the user's has a parameter `rng`."""
    if function is None:
        return False
    try:
        return "rng" in inspect.signature(function).parameters
    except (ValueError, TypeError):  # a builtin that tells nothing about its parameters
        return False


def held_by(program: Program) -> list[Held]:
    """The random generators that the program's objects hold, in the order in which a worker would find them."""
    found: list[Held] = []
    with contextlib.suppress(Exception):  # it cannot be pickled, and need not be: it runs in this process
        _pickled(program, [], found)
    return found


def _pickled(program: Program, buffers: list[pickle.PickleBuffer], held: list[Held] | None = None) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, value: Any) -> Any:
            if held is not None and is_held(value):
                held.append(value)
            found = mapped_file(value) if isinstance(value, np.memmap) else reduced(value)
            return found or super().reducer_override(value)

    file = io.BytesIO()
    Pickler(file, protocol=5, buffer_callback=buffers.append).dump(program)
    return file.getvalue()


def mapped_file(array: np.memmap[Any, Any]) -> Any:
    """How a worker maps the file that `array` maps, if it is the whole of it, in order."""
    mapped = isinstance(array.base, mmap.mmap) and array.filename is not None
    if not mapped or not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    order = "C" if array.flags.c_contiguous else "F"
    return np.memmap, (str(array.filename), array.dtype, "r", array.offset, array.shape, order)


def load(fd: int) -> Program:
    """Rebuild the program in a worker: in the trainer's directory, with its `sys.path` and `sys.argv`."""
    place, pickled, *buffers = open_bundle(fd)
    where = json.loads(bytes(place))
    sys.path[:], sys.argv[:] = where["path"], where["argv"]
    if where["cwd"] is not None:
        os.chdir(where["cwd"])
    came_with_program.clear()
    program = pickle.loads(pickled, buffers=buffers)
    assert isinstance(program, Program)
    return program


def load_again(fd: int) -> tuple[Program, list[Held]]:
    """Another copy of the program that this worker has loaded, and the random generators that its objects hold."""
    _, pickled, *buffers = open_bundle(fd)
    came_with_program.clear()
    program = pickle.loads(pickled, buffers=buffers)
    assert isinstance(program, Program)
    return program, list(came_with_program)


def _cwd() -> str | None:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # the trainer's directory was removed under it
        return None
