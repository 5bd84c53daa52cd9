"""Trains a contender and measures it.

In Keras 3 the batch is pulled inside `train_function(iterator)`, after `on_train_batch_begin`, so no callback
sees how long `fit` waits for its input. The train function that Keras made is therefore wrapped, in the same way for
every contender: the wrapper pulls the batch by `next(iterator)`, then lets Keras's own function take its step on that
batch, and times both. This costs about 0.1 ms per step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass
class RaceEpoch:
    """The measurements of one epoch.

    Attributes:
        seconds: Seconds from the beginning to the end of the epoch, including the time between steps.
        waiting: Seconds in which `fit` was blocked, waiting for its next batch.
        stepping: Seconds of forward pass, backward pass and update.
        examples: Number of examples trained on.
    """

    seconds: float = 0.0
    waiting: float = 0.0
    stepping: float = 0.0
    examples: int = 0


@dataclass(frozen=True)
class RaceProgress:
    """The progress of a contender, for the display.

    Attributes:
        epoch: The current epoch, counted from 1.
        step: The step in this epoch, counted from 1.
        loss: The loss of this epoch so far.
        accuracy: The accuracy on this epoch's training examples so far, 0 to 1.
        rate: Examples per second in this epoch.
        seconds: Seconds of all its epochs so far.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """The results of a contender.

    Attributes:
        name: The contender's name.
        how: What ran its Python code, such as "2 workers".
        epochs: One entry per epoch.
        accuracy: The accuracy on held-out digits as scanned, 0 to 1, after the last epoch.
    """

    name: str
    how: str
    epochs: tuple[RaceEpoch, ...]
    accuracy: float

    @property
    def steady(self) -> tuple[RaceEpoch, ...]:
        """The epochs that count: all but the first, in which Keras compiles and workers start."""
        return self.epochs[1:] or self.epochs

    @property
    def epoch_seconds(self) -> float:
        """The median time of an epoch."""
        return median(epoch.seconds for epoch in self.steady)

    @property
    def rate(self) -> float:
        """Examples per second in the median epoch."""
        return self.steady[0].examples / self.epoch_seconds

    @property
    def waiting(self) -> float:
        """The share of a step in which `fit` waited for its input, 0 to 1."""
        waiting = sum(epoch.waiting for epoch in self.steady)
        return waiting / (waiting + sum(epoch.stepping for epoch in self.steady))


class Stopwatch:
    """Times the pulls and steps of one `fit`, and reports the progress after each step.

    Args:
        report: Called after each step, in the thread that trains.
    """

    def __init__(self, report: Callable[[RaceProgress], None]) -> None:
        self.epochs: list[RaceEpoch] = []
        self._report = report
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
            # Given a list, Keras takes a step on its one batch. float() waits for the GPU, if any, to finish.
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
        self._report(
            RaceProgress(
                epoch=len(self.epochs),
                step=batch + 1,
                loss=logs["loss"],
                accuracy=logs["accuracy"],
                rate=rate,
                seconds=total,
            )
        )

    def _end(self, epoch: int, logs: Any = None) -> None:
        self.epochs[-1].seconds = perf_counter() - self._begun


class Contender:
    """A fresh model and the feed on which it is trained.

    Args:
        name: The feed's name.
        how: What runs its Python code.
        model: A compiled model with the metric "accuracy".
        dataset: A `tf.data.Dataset` of (images, labels), one epoch long.
        report: Called after each step.
    """

    def __init__(self, name: str, how: str, model: Any, dataset: Any, report: Callable[[RaceProgress], None]) -> None:
        self._name = name
        self._how = how
        self._model = model
        self._dataset = dataset
        self._watch = Stopwatch(report)
        self._callbacks = self._watch.around(model)

    def train_epoch(self) -> None:
        """Trains for one more epoch."""
        done = len(self._watch.epochs)
        # shuffle=False: Keras never shuffles a dataset, but it warns about its own default.
        self._model.fit(
            self._dataset,
            initial_epoch=done,
            epochs=done + 1,
            shuffle=False,
            verbose=0,
            callbacks=self._callbacks,
        )

    def result(self, held_out: tuple[Any, Any]) -> Result:
        """Evaluates the model on images and labels that it has never seen."""
        _, accuracy = self._model.evaluate(*held_out, verbose=0)
        return Result(self._name, self._how, tuple(self._watch.epochs), accuracy)
