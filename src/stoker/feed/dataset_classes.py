"""Classes that replace a dataset's own, to adapt how Python iterates over it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

from stoker.coordinator.producer import BatchProducer
from stoker.errors import OptionError
from stoker.feed import iterators_ahead, padded
from stoker.feed.keras_frames import read_to_the_end
from stoker.feed.lazy_tensorflow import tensorflow
from stoker.plan.host_shard import HostShard
from stoker.plan.position import Iteration, Position
from stoker.runtime.ctrl_c import listen_for_interrupts

#: Makes the dataset again, for these rows of each batch; the flag says whether losses are sums.
Remake = Callable[[HostShard, bool], Any]


# Dataset classes must not hold a producer: TensorFlow keeps each class that it has inspected, for the whole process.
def for_keras(made: Any, producer: BatchProducer, remake: Remake) -> Any:
    """`made`, whose last batch is filled up, with iterators adapted to Keras' own loops; see `padded`."""
    made.__class__ = _padded(made.__class__)
    made._stoker_producer, made._stoker_remake, made._stoker_others = producer, remake, {}
    return made


@cache
def _padded(kind: Hashable) -> Any:
    """A class of datasets that give a Keras loop the rows that it computes with correctly."""

    class Padded(kind):  # type: ignore[valid-type, misc]  # the base class is known only here
        def __iter__(self) -> Any:
            wanted = padded.of_keras_loop(self._stoker_producer, sys._getframe(1))
            if wanted is None:
                return super().__iter__()
            if wanted not in self._stoker_others:
                self._stoker_others[wanted] = self._stoker_remake(*wanted)
            return iter(self._stoker_others[wanted])

    return Padded


def never_ending(made: Any) -> Any:
    """`made`, with an error if `evaluate` or `predict` reads it without a number of steps and would never return."""
    made.__class__ = _refusing(made.__class__)
    return made


@cache
def _refusing(kind: Hashable) -> Any:
    """A class of datasets that `evaluate` and `predict` refuse to read without a number of steps."""

    class NeverEnding(kind):  # type: ignore[valid-type, misc]  # as above
        def __iter__(self) -> Any:
            frame = sys._getframe(1)
            for _ in range(12):
                its: Any = frame.f_locals.get("self")
                if type(its).__name__ == "TFEpochIterator" and its.steps_per_epoch is None and _is_evaluating(frame):
                    raise OptionError(
                        "this source never ends (length=math.inf). Pass `validation_steps` to fit(), or `steps` to "
                        "evaluate() and predict(); otherwise they would run forever."
                    )
                if frame.f_back is None:
                    break
                frame = frame.f_back
            return super().__iter__()

    return NeverEnding


def varying(made: Any) -> Any:
    """`made`, whose epochs may differ in length, with iterators that Keras' loops read to their end."""
    made.__class__ = _uncounted(made.__class__)
    return made


@cache
def _uncounted(kind: Hashable) -> Any:
    """A class of datasets that Keras' loops read to their end in each epoch."""

    class Uncounted(kind):  # type: ignore[valid-type, misc]  # as above
        def __iter__(self) -> Any:
            read_to_the_end(sys._getframe(1))
            return super().__iter__()

    return Uncounted


def counted(made: Any, producer: BatchProducer) -> Any:
    """`made`, with iterators that report to the producer how many elements an eager loop takes."""
    made.__class__ = _with_counting(made.__class__)
    made._stoker_producer = producer
    return made


@cache
def _with_counting(kind: Hashable) -> Any:
    """A class of datasets whose iterators count."""

    class Counted(kind):  # type: ignore[valid-type, misc]  # as above
        def __iter__(self) -> Any:
            listen_for_interrupts()
            return iterators_ahead.iterator(sys._getframe(1), self._stoker_iterator)

        def _stoker_iterator(self) -> Any:
            iterator = super().__iter__()
            if tensorflow().executing_eagerly():
                iterator.__class__ = _counting(iterator.__class__)
                iterator._stoker_producer = self._stoker_producer
            return iterator

    return Counted


@cache
def _counting(kind: Hashable) -> Any:
    """A class of iterators that count the elements taken in Python; elements taken in a graph go unseen."""

    class Counting(kind):  # type: ignore[valid-type, misc]  # as above
        _stoker_iteration: Iteration | None = None

        def __next__(self) -> Any:
            return self._stoker_count(self._stoker_take(super().__next__))

        def get_next(self) -> Any:
            element = self._stoker_take(super().get_next)
            return self._stoker_count(element) if tensorflow().executing_eagerly() else element

        def _stoker_take(self, take: Callable[[], Any]) -> Any:
            try:
                return take()
            except tensorflow().errors.OpError as error:
                last = self._stoker_producer.last_error
                if last is not None and str(last) in str(error):
                    error.__cause__ = last
                raise

        def _stoker_count(self, element: Any) -> Any:
            if self._stoker_iteration is None:
                epoch = self._stoker_producer.last_epoch()
                self._stoker_iteration = epoch.iteration if epoch is not None else Iteration(Position())
            self._stoker_iteration.taken = (self._stoker_iteration.taken or 0) + 1
            return element

    return Counting


def _is_evaluating(frame: Any) -> bool:
    """True if the frame was called by Keras' `evaluate` or `predict`."""
    while frame is not None:
        if frame.f_code.co_name in ("evaluate", "predict") and "keras" in frame.f_globals.get("__name__", ""):
            return True
        frame = frame.f_back
    return False
