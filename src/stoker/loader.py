"""Loader: the object a user holds. It joins the stations and holds no logic of theirs."""

from __future__ import annotations

import inspect
import operator
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from stoker.dispatch import AHEAD_MOST, LEASES, Dispatcher
from stoker.engines import Engine
from stoker.engines.cpus import usable_cpus
from stoker.engines.inline import InlineEngine
from stoker.errors import OptionError
from stoker.memory import Slot
from stoker.plan import Plan
from stoker.sources import MapSource
from stoker.worker.program import Program, dump

if TYPE_CHECKING:
    import tensorflow as tf


class Loader:
    """Runs a map-style source in many processes and hands over its batches, which lie in shared memory.

    Every iteration, of the Loader or of a dataset made by `to_tf`, is the next epoch, counted from
    its first pull. Within an epoch each example comes once, in an order that depends on `source`,
    `seed`, `shuffle`, `batch_size` and the epoch alone: not on `workers`, timing or worker deaths.

    Args:
        source: any object with `__len__` and `__getitem__(index)`, index an int from 0. An example is
            a nested dict, list, tuple or namedtuple of arrays, numbers and bools; all examples have
            the same structure, shapes and dtypes. If it has `__getitems__(indices)`, that is asked
            for runs of up to 64 examples instead. It is pickled once (with cloudpickle) and lives in
            the workers; its arrays are shared by all of them, read-only.
        batch_size: examples in a batch.
        shuffle: whether each epoch takes the examples in a new permutation of the whole source, in
            O(1) memory: a Feistel network with cycle walking (Black and Rogaway, 2002; see
            `stoker.plan.permutation`).
        seed: what the permutations and all random numbers of the workers are drawn from. `random`,
            `numpy.random` and the transform's `rng` are set anew before each example.
        transform: called with each example in the worker; gets a `numpy.random.Generator` as `rng` if
            it has a parameter of that name. Returns the example that goes into the batch.
        drop_remainder: whether the last batch is left out when it is not full.
        workers: worker processes; None for one on each CPU that this process may use (affinity and
            cgroup quota); 0 to run the user's code in the pulling thread, for debugging.
        prefetch: batches made ahead of their pull; None for 2 to 16, by their size (64 MB in all).

    Raises:
        OptionError: an argument without meaning.
        SourceError: a source without length, examples or `__getitem__`.
        ProgramError: a source or transform that cannot be pickled; tells which part of it.

    Iterating raises `WorkerError` when the user's code raises (with its traceback), `SpecError` when an
    example does not fit the others, `WorkerDied` when four workers in a row died at the same rows, and
    `SourceError` when the source's length has changed. The Loader can be iterated again after each.

    Example:
        >>> with Loader([float(i) for i in range(5)], batch_size=2, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        transform: Callable[..., Any] | None = None,
        drop_remainder: bool = False,
        workers: int | None = None,
        prefetch: int | None = None,
    ) -> None:
        batch_size = _whole("batch_size", batch_size, least=1)
        prefetch = None if prefetch is None else _whole("prefetch", prefetch, least=1)
        workers = usable_cpus() if workers is None else _whole("workers", workers, least=0)
        if not isinstance(shuffle, bool):
            raise OptionError(
                f"shuffle must be True or False, got {shuffle!r}: a map-style source is shuffled as a whole."
            )
        if transform is not None and not callable(transform):
            raise OptionError(f"transform must be callable, got {transform!r}")
        self._source = MapSource(source, keep=workers == 0)
        self._plan = Plan(
            self._source.length, batch_size, shuffle, _whole("seed", seed, least=None), bool(drop_remainder)
        )
        if not self._plan.batches:
            raise OptionError(
                f"drop_remainder=True with batch_size {batch_size} leaves no batch of {self._plan.length} examples; "
                "use a smaller batch_size or drop_remainder=False."
            )
        program = Program(source, transform, _wants_rng(transform), self._plan.seed, self._plan.length, batch_size)
        self._dispatcher = _dispatcher(program, self._plan, workers, prefetch)
        self._let_go = weakref.finalize(self, self._dispatcher.request_stop)
        self._let_go.atexit = False  # the exit hook of `dispatch` does more: it waits

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._plan.batches

    def __iter__(self) -> Batches:
        """Iterate over the next epoch: the examples' structure, with NumPy arrays of shape (rows, …).

        The arrays are read-only and lie in shared memory, which is used again once nothing refers to
        them or to views of them; so they may be kept, as many as one likes (beyond 10 batches they are copies).
        """
        return Batches(self)

    @property
    def element_spec(self) -> Any:
        """The `tf.TensorSpec` of each leaf of a batch, nested as `to_tf().element_spec`. Needs TensorFlow."""
        from stoker.feed.tensorflow import element_spec

        return element_spec(self._dispatcher.spec(), self._plan.static_rows())

    def to_tf(self) -> tf.data.Dataset:
        """A `tf.data.Dataset` of the batches, without copying them; each iteration of it is the next epoch.

        It has a static batch dimension when all batches are full, a known cardinality, and prefetches.
        Lists in the examples become tuples, as everywhere in tf.data.

        Raises:
            ImportError: TensorFlow is missing; tells the `pip install` line.

        Example:
            >>> with Loader([(float(i), i) for i in range(4)], batch_size=2, workers=0) as loader:
            ...     [(x.numpy().tolist(), y.numpy().tolist()) for x, y in loader.to_tf()]
            [([0.0, 1.0], [0, 1]), ([2.0, 3.0], [2, 3])]
        """
        from stoker.feed.tensorflow import dataset

        return dataset(self, self._dispatcher.spec(), self._plan)

    def close(self) -> None:
        """End the workers, within 2 seconds.

        Batches that were handed over stay valid; iterating raises `ClosedError`.
        """
        self._let_go.detach()
        self._dispatcher.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Batches(Iterator[Any]):
    """One iteration of a Loader. It keeps the Loader alive; dropping it gives its slots back."""

    def __init__(self, loader: Loader) -> None:
        self._loader: Loader | None = loader
        self._dispatcher = loader._dispatcher
        self._stream = self._dispatcher.open_stream()
        self._pulling = threading.Lock()
        self._begun = False

    def __next__(self) -> Any:
        leaves = self.leaves()
        return self._dispatcher.spec().unflatten(leaves)

    def leaves(self) -> list[npt.NDArray[Any]]:
        """The arrays of the next batch, in the order of the spec; raises StopIteration at the epoch's end."""
        with self._pulling:
            if self._loader is None:
                raise StopIteration
            if not self._begun:
                self._loader._source.check()
                self._begun = True
            try:
                return self._dispatcher.pull(self._stream)
            except Exception:  # the epoch's end, or an error that ends the epoch
                self.close()
                raise

    def close(self) -> None:
        """Give the slots of this iteration back; batches that were handed over stay valid."""
        if self._loader is not None:
            self._loader = None
            self._dispatcher.close_stream(self._stream)

    def __del__(self) -> None:
        if getattr(self, "_loader", None) is not None:
            self._dispatcher.drop_stream(self._stream)


def _dispatcher(program: Program, plan: Plan, workers: int, prefetch: int | None) -> Dispatcher:
    from stoker.worker.runner import RUN

    together = hasattr(type(program.source), "__getitems__")
    ahead = prefetch or min(AHEAD_MOST, max(2, plan.batches))
    slots = [Slot.create("slot") for _ in range(ahead + LEASES)]
    engine: Engine
    if workers:
        from stoker.engines.processes import ProcessEngine

        engine = ProcessEngine(dump(program), slots, workers)
    else:
        engine = InlineEngine(program, slots)
    return Dispatcher(plan, slots, engine, workers=workers, prefetch=prefetch, run=RUN if together else 1)


def _whole(name: str, value: Any, *, least: int | None) -> int:
    """`value` as an int; raises `OptionError` unless it is a whole number of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise OptionError(f"{name} must be an int{bound}, got {value!r}")
    return number


def _wants_rng(transform: Callable[..., Any] | None) -> bool:
    if transform is None:
        return False
    try:
        return "rng" in inspect.signature(transform).parameters
    except (ValueError, TypeError):  # a builtin that tells nothing about its parameters
        return False
