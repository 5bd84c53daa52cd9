"""One iteration of a Loader: an epoch, batch after batch."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import numpy.typing as npt

from stoker.coordinator.producer import BatchProducer
from stoker.errors import ClosedError, StokerError, cannot_be_copied, copied
from stoker.feed import numpy as arrays
from stoker.plan.host_shard import HostShard
from stoker.plan.position import Iteration, Position
from stoker.runtime.interpreter_exit import rest_if_exiting
from stoker.runtime.signals import shielded

_Made = TypeVar("_Made")


class BatchIterator(Iterator[Any]):
    """One iteration of a Loader; dropping it releases its slots.

    Args:
        producer: makes the batches.
        owner: the object that stops the producer when it is gone; it is kept alive.
        serialized: True if each component is a serialised tensor.
        host_shard: the rows of each batch to hand out; None for the producer's own.
        apart: True if TensorFlow pulls, whose threads must not run the user's code.
    """

    def __init__(
        self,
        producer: BatchProducer,
        owner: object,
        serialized: bool = False,
        host_shard: HostShard | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self._producer = producer
        self._stream = self._producer.open_stream(serialized, host_shard, apart=apart)
        self._owner: object | None = owner
        self._pulling = threading.Lock()
        self._begun = False
        self.iteration = Iteration(Position())
        self._ready: deque[list[npt.NDArray[Any]]] = deque()
        self._handing_out = threading.Lock()
        self._singles: Iterator[Any] | None = iter(()) if producer.outline().single else None

    def __next__(self) -> Any:
        self._producer.require_owner()
        if self._singles is None:
            return self._next(lambda leaves: arrays.batch(self._producer.form(), leaves), counts=True)
        with self._handing_out:
            for example in self._singles:
                self._took()
                return example
            leaves = self.leaves()
            self._singles = arrays.examples(self._producer.form(), leaves)
            example = next(self._singles)
            self._took()
            return example

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise cannot_be_copied("an iterator of a Loader")

    def _took(self) -> None:
        """Count one more batch or example as taken by the consumer."""
        self.iteration.taken = (self.iteration.taken or 0) + 1

    def is_last(self, cardinality: float | None) -> bool:
        """True if the number of batches is known and all batches of the epoch were handed over."""
        return self.iteration.begin.taken + self.iteration.handed == cardinality and not self._ready

    def end(self) -> None:
        """Pull the end of the epoch after the last batch. Raises the source's error if the source has more batches."""
        try:
            self.leaves()
        except StopIteration:
            return
        raise AssertionError("there are more batches than were counted")

    def leaves(self) -> list[npt.NDArray[Any]]:
        """The arrays of the next batch, in the order of the form's parts. Raises StopIteration at the epoch's end."""
        return self._next(lambda leaves: leaves)

    def _next(self, make: Callable[[list[npt.NDArray[Any]]], _Made], *, counts: bool = False) -> _Made:
        """The result of `make` for the next batch. The batch is taken only afterwards, so Ctrl-C loses nothing."""
        self._producer.require_owner()
        try:
            return self._first(make, counts)
        except StokerError as error:
            self._record(error)
            if isinstance(error, ClosedError):
                rest_if_exiting()
            raise

    def _record(self, error: StokerError) -> None:
        """Record an error as the last one, as a copy: its frames must not keep the Loader alive."""
        self._producer.last_error = copied(error)

    def _first(self, make: Callable[[list[npt.NDArray[Any]]], _Made], counts: bool) -> _Made:
        with self._pulling:
            while True:
                if self._owner is None:
                    raise StopIteration
                for leaves in list(self._ready):
                    made = make(leaves)
                    with contextlib.suppress(IndexError):  # another thread has just closed this iteration
                        self._ready.popleft()
                    if counts:
                        self._took()
                    return made
                self._pull()

    def _pull(self) -> None:
        """Pull all ready batches, at least one. Ctrl-C takes effect before or after the pull."""
        self._check()
        with shielded():
            begun = self._begun
            pulled = self._ask(self._producer.pull)
            if not begun and (drop := self._drop()):
                pulled[0] = arrays.behind(self._producer.form(), pulled[0], drop)
            self._ready.extend(pulled)
            if self._owner is None:  # another thread has closed this iteration, perhaps before its stream had begun
                self._ready.clear()
                self._producer.close_stream(self._stream)

    def _check(self) -> None:
        """Before the first pull, raise an error if something is wrong with the source. That ends this iteration."""
        if self._begun:
            return
        try:
            self._producer.check_source()
        except StokerError:
            self.close()
            raise

    def _ask(self, pull: Callable[[int], _Made]) -> _Made:
        """The result of `pull` for this stream. Closes this iteration if it has ended or failed."""
        try:
            if not self._begun:
                self._stream = self._producer.begin(self._stream)
            pulled = pull(self._stream)
        except Exception as error:
            is_over = self._begun and self._producer.epoch(self._stream) is None
            if is_over or isinstance(error, StopIteration | StokerError):  # else a user's signal handler raised it
                self.close()
            raise
        if not self._begun:
            self._begun = True
            if (epoch := self._producer.epoch(self._stream)) is not None:
                self.iteration = epoch.iteration
        return pulled

    def _drop(self) -> int:
        """The number of examples of the first batch that were taken in an earlier run."""
        epoch = self._producer.epoch(self._stream)
        return epoch.drop if epoch is not None else 0

    def stacks(self) -> list[npt.NDArray[Any]]:
        """The arrays of the next batches along a new first axis, for batches taken from arrays in memory."""
        self._producer.require_owner()
        with self._pulling:
            if self._owner is None:
                raise StopIteration
            self._check()
            with shielded():
                return self._ask(self._producer.pull_stacked)

    def several(self, most: int) -> list[list[npt.NDArray[Any]]]:
        """The arrays of the next batch and of the ready ones after it, at most `most` batches."""
        found = [self.leaves()]
        with self._pulling, contextlib.suppress(IndexError):
            while len(found) < most:
                found.append(self._ready.popleft())
        return found

    def close(self) -> None:
        """Release the slots of this iteration; batches already handed over stay valid."""
        if self._owner is not None:
            self._owner = None
            self._ready.clear()
            with contextlib.suppress(ClosedError):  # in a fork, which does not own this iteration
                self._producer.close_stream(self._stream)

    def __del__(self) -> None:
        if getattr(self, "_owner", None) is not None:
            self._producer.drop_stream(self._stream)
