"""Makes batches of in-memory arrays in the trainer: handing such work to processes costs more than doing it.

A single NumPy call per array makes a batch, or several small ones, and does not hold the GIL. This producer therefore
needs no workers and no shared memory, and copies nothing but the rows (docs/decisions.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.coordinator.producer import EpochProducer, EpochSetup
from stoker.epochs.epoch import Epoch
from stoker.epochs.index_epoch import IndexEpoch
from stoker.errors import OptionError
from stoker.insight.measured import Measured
from stoker.insight.pull_times import IterationClock, PullTimes
from stoker.memory.batch_memory import BatchMemory
from stoker.memory.layout import Layout
from stoker.runtime.interpreter_exit import close_at_exit
from stoker.sources.source import ArraysInMemory
from stoker.stats import Stats
from stoker.structure.collation import Form
from stoker.structure.forms import join_strings
from stoker.structure.tensorproto import tensor_bytes

#: Small batches are made several at once: as many as fit into this number of bytes, up to this maximum.
_BYTES, _MOST = 1 << 20, 16

Arrays = list[npt.NDArray[Any]]


class InMemoryProducer(EpochProducer[IndexEpoch]):
    """Serves the streams of a Loader of arrays, without workers.

    Args:
        setup: makes the epochs.
        source: the arrays.
        form: the form of the batches.
        rows: rows of a full batch, of this trainer.
        memory_limit: maximum bytes of a batch.
    """

    def __init__(
        self, setup: EpochSetup[IndexEpoch], source: ArraysInMemory, form: Form, rows: int, memory_limit: int
    ) -> None:
        super().__init__(setup)
        self._source, self._form = source, form
        nbytes = Layout.of(form.spec.leaves, rows).nbytes
        if nbytes > memory_limit:
            raise OptionError(
                f"a batch of {rows} examples takes {nbytes:,} bytes, more than memory_limit={memory_limit:,}. Use a "
                "smaller batch_size or a larger memory_limit."
            )
        self.together = max(1, min(_MOST, _BYTES // nbytes))
        self._pulls, self._clocks = PullTimes(), dict[int, IterationClock]()
        self._memory = BatchMemory(Layout.of(form.spec.leaves, rows * self.together))
        close_at_exit(self)

    def form(self, *, apart: bool = False) -> Form:
        with self._changed:
            self._check()
            return self._form

    def pull(self, stream: int) -> list[Arrays]:
        stacks = self.pull_stacked(stream)
        batches = [[stack[number] for stack in stacks] for number in range(len(stacks[0]))]
        if stream in self._serialized:
            return [[part for array in batch for part in _serialized(array)] for batch in batches]
        return batches

    def pull_stacked(self, stream: int) -> Arrays:
        since = time.monotonic()
        with self._changed:
            self._check()
            while self._dropped:
                self._ended(self._dropped.popleft())
            epoch = self._begin(stream)
            batches = epoch.some_batches(epoch.iteration.handed, self.together)
            if not batches:
                epoch.iteration.ended = True
                self._ended(stream)
                raise StopIteration
            epoch.handed([len(numbers) for numbers in batches])
            arrays = self._memory.arrays(sum(map(len, batches)))
        self._source.take(np.concatenate(batches), arrays)
        for array in arrays:
            array.flags.writeable = False
        self._note(stream, since, batches, arrays)
        return [array.reshape(len(batches), len(batches[0]), *array.shape[1:]) for array in arrays]

    def _note(self, stream: int, since: float, batches: list[Any], arrays: Arrays) -> None:
        """Note a pull, for `measured`."""
        examples, nbytes = sum(map(len, batches)), sum(array.nbytes for array in arrays)
        with self._changed:
            clock = self._clocks.setdefault(stream, IterationClock())
            clock.waited = time.monotonic() - since
            self._pulls.pulled(clock, batches=len(batches), examples=examples, nbytes=nbytes, ready=0)

    def measured(self) -> Measured:
        with self._changed:
            return Measured(Stats(), replace(self._pulls), in_trainer=True)

    def _ended(self, stream: int) -> Epoch | None:
        self._clocks.pop(stream, None)
        return super()._ended(stream)

    def update(self, values: Mapping[str, Any]) -> None:
        self._setup.guard.accept(values)

    def fed(self, key: int) -> None:
        """Does nothing: arrays are not pulled."""

    def stats(self) -> Stats:
        with self._changed:
            return Stats()

    def close_stream(self, stream: int) -> None:
        with self._changed:
            self._ended(stream)

    def request_stop(self) -> None:
        self.close()

    def close(self) -> None:
        if self._changed.is_ours():
            self._closed = True


def _serialized(array: npt.NDArray[Any]) -> Arrays:
    """The parts of a string tensor that holds the serialised array."""
    joined, ends = join_strings([tensor_bytes(array)])
    return [np.frombuffer(joined, np.uint8), ends.reshape(())]
