"""The program that workers run: the user's source and transform, pickled once.

The pickle's large buffers (arrays) are written beside it, out of band, so that all workers map the
same read-only pages.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import mmap
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stoker.errors import ProgramError, cause
from stoker.memory.bundle import open_bundle, write_bundle
from stoker.memory.memfd import Memfd
from stoker.pickling.stand_ins import settle, stand_ins
from stoker.protocol.random_objects import came_with_program, is_held, reduced
from stoker.protocol.surroundings import Surroundings, described
from stoker.structure.collation import Collation

if TYPE_CHECKING:
    from stoker.protocol.random_objects import Held


@dataclass(frozen=True)
class Program:
    """The user's code, and the options needed to run it.

    Attributes:
        source: the map-style source, a `ShardedSource`, or None for items that the trainer sends.
        transform: called with each example, or None.
        wants_rng: `transform` takes an argument `rng`.
        seed: the Loader's seed.
        length: examples in a map-style source, which the plan relies on; None for other and for endless sources.
        batch_size: rows of a full batch.
        collation: how examples are joined into a batch.
        shuffle: size of each shard's shuffle buffer, or 0.
        memory_limit: bytes that all slots together may take.
        is_sharded: workers open the source's shards, instead of reading it by index or being sent items.
        skips: examples that raise are left out.
        seeds_globals: global random states are seeded before each example.
        weighs: each example gets a `sample_weight`.
        shares: all workers share one copy of the arrays, which none of them may write to.
        worker_init: called once in each worker, before any other user code is loaded, or None.
        repeats: an epoch may take an example more than once; see `stoker.plan.order.Order.numbers`.
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
    is_sharded: bool = False
    skips: bool = False
    seeds_globals: bool = True
    weighs: bool = False
    shares: bool = True
    worker_init: Callable[[], Any] | None = None
    repeats: bool = False


def dump(program: Program) -> Memfd:
    """Write the program to shared memory. Raises `ProgramError`."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        pickled, rest, modules, imports = _pickled(program, buffers)
    except Exception as error:
        from stoker.pickling.unpicklable import refusal

        parts = {
            "source": program.source,
            "transform": program.transform,
            "collate": program.collation.function,
            "worker_init": program.worker_init,
        }
        raise ProgramError(refusal(parts, error)) from cause(error)
    place = {
        **described(modules),
        "imports": imports if program.worker_init is None else [],  # it may set what an import depends on
        "key": _key(),
        "seed": program.seed if program.seeds_globals else None,
    }
    return write_bundle(
        [json.dumps(place).encode(), rest, pickled, *(buffer.raw() for buffer in buffers)], shared=program.shares
    )


def takes_rng(function: Callable[..., Any] | None) -> bool:
    """True if a user function has a parameter `rng`."""
    if function is None:
        return False
    try:
        return "rng" in inspect.signature(function).parameters
    except (ValueError, TypeError):  # a builtin without a signature
        return False


def takes_nothing(function: Any) -> bool:
    """True if `function` can be called without arguments, or has no signature to tell."""
    try:
        inspect.signature(function).bind()
    except ValueError:  # a builtin without a signature
        return True
    except TypeError:  # not callable, or needs arguments
        return False
    return True


def held_by(program: Program) -> list[Held]:
    """The random generators held by the program's objects, in the order in which a worker finds them."""
    found: list[Held] = []
    with contextlib.suppress(Exception):  # not picklable, which is fine: it runs in this process
        _pickled(program, [], found)
    return found


def _pickled(
    program: Program, buffers: list[pickle.PickleBuffer], held: list[Held] | None = None
) -> tuple[bytes, bytes, list[str], list[str]]:
    """Three consecutive pickles, the rest of the user's definitions, the modules that define them, and those to import.

    The pickles hold `worker_init`, the program, and its named objects from modules that a worker cannot import.
    One pickler writes all three, so they share their objects.
    """
    from stoker.pickling.pickler import Pickler
    from stoker.pickling.script_definitions import rest_of, sent_of

    class ProgramPickler(Pickler):
        def reducer_override(self, value: Any) -> Any:
            if held is not None and is_held(value):
                held.append(value)
            found = mapped_file(value) if isinstance(value, np.memmap) else reduced(value)
            return found or super().reducer_override(value)

    file = io.BytesIO()
    pickler = ProgramPickler(file, buffers.append, keeps=True)
    with pickler.by_value():
        pickler.dump(program.worker_init)
        pickler.dump(program)
        if held is not None:
            return b"", b"", [], []
        pickler.travels("__main__")
        sent = sent_of(pickler)
        pickler.dump(sent)
    imports = [name for name in pickler.imported if not pickler.modules[name]]
    return file.getvalue(), rest_of(sent), list(sent), imports


def mapped_file(array: np.memmap[Any, Any]) -> Any:
    """Reduce a memory-mapped array to its file, for the worker to map. None unless it is the whole map, contiguous."""
    mapped = isinstance(array.base, mmap.mmap) and array.filename is not None
    if not mapped or not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    order = "C" if array.flags.c_contiguous else "F"
    return np.memmap, (str(array.filename), array.dtype, "r", array.offset, array.shape, order)


class LoadedProgram:
    """The program as received by a worker. Load `worker_init` first, then `program`, each once.

    The constructor enters the surroundings of the trainer.

    Attributes:
        surroundings: the surroundings that its code needs.
        key: the authentication key of the trainer's multiprocessing, or None.
        seed: the Loader's seed, or None if global random states are left alone.
    """

    def __init__(self, fd: int) -> None:
        place, rest, pickled, *buffers = open_bundle(fd)
        where = json.loads(bytes(place))
        self.key = None if where["key"] is None else bytes.fromhex(where["key"])
        self.seed: int | None = where["seed"]
        self._pickles = pickle.Unpickler(io.BytesIO(pickled), buffers=buffers)
        came_with_program.clear()
        self.surroundings = Surroundings(where, stand_ins(where["modules"], rest))
        self.surroundings.enter()

    def worker_init(self) -> Callable[[], Any] | None:
        """The function to call before the program is loaded, or None."""
        function: Callable[[], Any] | None = self._pickles.load()
        return function

    def program(self) -> Program:
        """Unpickle the program and register its definitions in the stand-in modules."""
        program = self._pickles.load()
        assert isinstance(program, Program)
        settle(self._pickles.load())
        return program


def enter(fd: int) -> list[str]:
    """Change to the trainer's working directory, `sys.path` and `sys.argv`. Returns the modules that a program uses."""
    where = json.loads(bytes(open_bundle(fd)[0]))
    Surroundings(where, {}).enter()
    imports: list[str] = where["imports"]
    return imports


def _key() -> str | None:
    """This process's multiprocessing key, if a multiprocessing manager may be in use."""
    if "multiprocessing.managers" not in sys.modules:
        return None
    return bytes(sys.modules["multiprocessing.process"].current_process().authkey).hex()


def load_again(fd: int) -> tuple[Program, list[Held]]:
    """Load a second copy of this worker's program. Returns it and the random generators its objects hold."""
    _, _, pickled, *buffers = open_bundle(fd)
    pickles = pickle.Unpickler(io.BytesIO(pickled), buffers=buffers)
    came_with_program.clear()
    pickles.load()  # worker_init, already called
    program = pickles.load()
    assert isinstance(program, Program)
    return program, list(came_with_program)
