"""How each loader is driven into ``tf.data``, as its own users would.

Each module here has ``PACKAGE`` (what ``pip install`` needs, empty where nothing is) and ``feed``, which is a
:class:`Feed`. All of a peer's imports are at the top of its module, so they are done before any clock runs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from benchmarks.cases import Case, Source

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PREFETCH = 2
"""Batches that tf.data holds ready, the same for every contender."""


@dataclass(frozen=True)
class Job:
    """What a contender is asked to do."""

    case: Case
    source: Source
    workers: int

    @property
    def batches(self) -> int:
        return len(self.source) // self.case.batch_size


class Feed(Protocol):
    """Opens a loader: called once an epoch; the dataset is read once; the loader ends when the context is left."""

    def __call__(self, job: Job) -> AbstractContextManager[Any]: ...


class Driver(Protocol):
    """The names that each module of this package has."""

    PACKAGE: str
    feed: Feed


MODULES = {
    "stoker": "stoker_loader",
    "spdl": "spdl_arena",
    "grain": "grain_workers",
    "torch": "torch_loader",
    "torch_spawn": "torch_spawned",
    "pydataset": "keras_pydataset",
    "pool": "process_pool",
    "threads": "threads",
    "generator": "one_process",
    "ready_batch": "ready_batch",
}

TITLES = {
    "stoker": "Stoker",
    "spdl": "SPDL iterate_in_subprocess + segment pool",
    "grain": "Grain mp_prefetch",
    "torch": "PyTorch DataLoader (fork)",
    "torch_spawn": "PyTorch DataLoader (spawn)",
    "pydataset": "Keras PyDataset, processes",
    "pool": "multiprocessing.Pool.imap",
    "threads": "tf.data map of numpy_function, threads",
    "generator": "from_generator, one process",
    "user_code": "limit 1: user's code only",
    "ready_batch": "limit 2: a ready batch",
}

LIMIT = "user_code"
"""The contender that every other is compared with; it hands nothing over (see ``benchmarks/user_code.py``)."""

LIMITS = (LIMIT, "ready_batch")
"""The contenders that load nothing."""

ONLY_ON = {"pydataset": "abcde", "pool": "fghi", "threads": "ce"}
"""The cases of contenders that do not run on all. Keras takes no strings and no ragged batches; on the other cases a
pool is what it is. Threads help where the user's code releases the GIL."""


def runs_on(name: str, case: str) -> bool:
    return case in ONLY_ON.get(name, case)


def load(name: str) -> Driver:
    """Import the driver of a contender, and with it the peer's package.

    Raises:
        ImportError: the peer is not installed.
    """
    return cast(Driver, importlib.import_module(f"{__name__}.{MODULES[name]}"))


def into_tf(job: Job, batches: Callable[[], Iterator[Any]]) -> Any:
    """A generator of collated batches as a ``tf.data.Dataset``, with the spec known beforehand."""
    import tensorflow as tf

    batching = job.case.batching
    made = tf.data.Dataset.from_generator(batches, output_signature=batching.signature(job.case.batch_size))
    return batching.delivered(made).prefetch(PREFETCH)
