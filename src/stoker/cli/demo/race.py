"""Trains a contender, and measures it.

In Keras 3 the batch is pulled inside `train_function(iterator)`, after `on_train_batch_begin`: no callback
sees how long `fit` waits for its input. So the train function that Keras made is wrapped, for every
contender in the same way: pull the batch by `next(iterator)`, timed, then let Keras's own function take its
step on that batch, timed. This costs some 0.1 ms a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass
class RaceEpoch:
    """What one epoch took.

    Attributes:
        seconds: From the beginning of the epoch to its end, what lies between steps included.
        waiting: Seconds in which `fit` was blocked for its next batch.
        stepping: Seconds of forward, backward and update.
        examples: How many went through.
    """

    seconds: float = 0.0
    waiting: float = 0.0
    stepping: float = 0.0
    examples: int = 0


@dataclass(frozen=True)
class Now:
    """How far a contender is, for the progress display.

    Attributes:
        epoch: Counted from 1.
        step: Of this epoch, counted from 1.
        loss: Of this epoch until now.
        accuracy: On this epoch's training examples until now, 0 to 1.
        rate: Examples a second in this epoch.
        seconds: Of all its epochs until now.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """What a contender reached.

    Attributes:
        name: The contender's.
        how: What ran its Python, as "2 workers".
        epochs: One entry an epoch.
        accuracy: On held-out digits as they were scanned, 0 to 1, after the last epoch.
    """

    name: str
    how: str
    epochs: tuple[RaceEpoch, ...]
    accuracy: float

    @property
    def steady(self) -> tuple[RaceEpoch, ...]:
        """The epochs that count: not the first, in which Keras compiles and workers start."""
        return self.epochs[1:] or self.epochs

    @property
    def epoch_seconds(self) -> float:
        """The median time of an epoch."""
        return median(epoch.seconds for epoch in self.steady)

    @property
    def rate(self) -> float:
        """Examples a second in the median epoch."""
        return self.steady[0].examples / self.epoch_seconds

    @property
    def waiting(self) -> float:
        """The share of a step in which `fit` waited for its input, 0 to 1."""
        waiting = sum(epoch.waiting for epoch in self.steady)
        return waiting / (waiting + sum(epoch.stepping for epoch in self.steady))


class Stopwatch:
    """Times the pulls and steps of one `fit`, and says after each how far it is.

    Args:
        tell: Called after each step, in the thread that trains.
    """

    def __init__(self, tell: Callable[[Now], None]) -> None:
        self.epochs: list[RaceEpoch] = []
        self._tell = tell
        self._begun = 0.0

    def around(self, model: Any) -> list[Any]:
        """Wraps the model's train function.

        Returns:
            The callbacks that `fit` must be given.
        """
        import keras

        model.make_train_function()
        model.train_function = self._timed(model.train_function)
        return [
            keras.callbacks.LambdaCallback(
                on_epoch_begin=self._begin, on_train_batch_end=self._stepped, on_epoch_end=self._end
            )
        ]

    def _timed(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def pull_and_step(iterator: Any) -> dict[str, float]:
            begun = perf_counter()
            batch = next(iterator)
            pulled = perf_counter()
            # Given a list, Keras steps on its one batch. float() waits for a GPU, if there is one, to finish.
            logs = {name: float(value) for name, value in step([batch]).items()}
            epoch = self.epochs[-1]
            epoch.waiting += pulled - begun
            epoch.stepping += perf_counter() - pulled
            epoch.examples += len(batch[1])
            return logs

        return pull_and_step

    def _begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(RaceEpoch())
        self._begun = perf_counter()

    def _stepped(self, batch: int, logs: Any = None) -> None:
        epoch = self.epochs[-1]
        epoch.seconds = perf_counter() - self._begun
        total = sum(epoch.seconds for epoch in self.epochs)
        rate = epoch.examples / epoch.seconds
        self._tell(Now(len(self.epochs), batch + 1, logs["loss"], logs["accuracy"], rate, total))

    def _end(self, epoch: int, logs: Any = None) -> None:
        self.epochs[-1].seconds = perf_counter() - self._begun


class Contender:
    """A fresh model and the feed that it learns from.

    Args:
        name: Of the feed.
        how: What runs its Python.
        model: Compiled, with the metric "accuracy".
        dataset: A `tf.data.Dataset` of (images, labels), one epoch long.
        tell: Called after each step.
    """

    def __init__(self, name: str, how: str, model: Any, dataset: Any, tell: Callable[[Now], None]) -> None:
        self._name = name
        self._how = how
        self._model = model
        self._dataset = dataset
        self._watch = Stopwatch(tell)
        self._callbacks = self._watch.around(model)

    def train_epoch(self) -> None:
        """Trains one more epoch."""
        done = len(self._watch.epochs)
        # shuffle=False: of a dataset Keras shuffles nothing either way, but it warns about its own default.
        self._model.fit(
            self._dataset,
            initial_epoch=done,
            epochs=done + 1,
            shuffle=False,
            verbose=0,
            callbacks=self._callbacks,
        )

    def result(self, held_out: tuple[Any, Any]) -> Result:
        """Asks the model about images and labels that it has never seen."""
        _, accuracy = self._model.evaluate(*held_out, verbose=0)
        return Result(self._name, self._how, tuple(self._watch.epochs), accuracy)
