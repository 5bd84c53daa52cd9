"""The iterations that Keras' loops make on JAX and PyTorch. Each one that is computed with is an epoch of the Loader.

Keras makes iterators that it never reads, so an epoch begins with the first batch that is pulled. It also pulls a batch
only to find out the shapes of a model that is not built, and drops it. That iteration is put back: the next one
continues it, from its first batch, unless the Loader's position has changed in between.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy.typing as npt

from stoker.coordinator.producer import BatchProducer
from stoker.errors import SpecError
from stoker.feed import padded
from stoker.feed.batch_iterator import BatchIterator
from stoker.feed.keras_frames import only_looks
from stoker.plan.host_shard import HostShard

Leaves = list[npt.NDArray[Any]]


class KerasEpoch:
    """One epoch of the Loader, whose first batches may have been pulled for a look.

    Args:
        producer: makes the batches.
        owner: the object that stops the producer when it is gone; it is kept alive.
        frame: the frame of Keras that pulls the first batch.
    """

    def __init__(self, producer: BatchProducer, owner: object, frame: FrameType) -> None:
        self._producer = producer
        host_shard, sums = None, producer.batching.sums
        if producer.batching.host_shard.pads and (wanted := padded.of_keras_loop(producer, frame)) is not None:
            host_shard, sums = wanted
        self._cardinality = producer.outline().cardinality
        self._factors = self._scale(host_shard, sums=sums)
        self._its = BatchIterator(producer, owner, host_shard=host_shard)
        self._looked: deque[Leaves] = deque()

    def _scale(self, host_shard: HostShard | None, *, sums: bool) -> dict[int, float]:
        """The factors for the weights in the last batch, by array; see `padded.scale`."""
        batching = self._producer.batching
        if not batching.weighs:
            return {}
        counts = self._producer.form().counts
        found = padded.scale(self._producer, host_shard or batching.host_shard, sums=sums)
        return {sum(counts[:leaf]): factor for leaf, factor in found.items()}

    def look(self, number: int) -> Leaves:
        """The batch with this number, which remains to be taken. Raises StopIteration if there are fewer."""
        while len(self._looked) <= number:
            self._looked.append(self._pull())
            with self._producer.consumption() as consumption:
                consumption.put_back(self._its.iteration)
        return self._looked[number]

    def take_up(self) -> bool:
        """Continue this epoch after a look. False if another iteration or another position came in between."""
        with self._producer.consumption() as consumption:
            return consumption.take_up(self._its.iteration)

    def take(self) -> Leaves:
        """The next batch. Raises StopIteration at the epoch's end."""
        return self._looked.popleft() if self._looked else self._pull()

    def _pull(self) -> Leaves:
        leaves = self._its.leaves()
        if self._cardinality is None or self._cardinality == math.inf:
            return leaves
        if self._producer.outline().cardinality is None:
            raise SpecError(
                "a transform returned stoker.SKIP or stoker.Many, so the number of batches is unknown, but Keras "
                "already counts on it. Call to_keras() again, or name SKIP and Many in the transform itself."
            )
        if self._its.is_last(self._cardinality):
            self._its.end()
            for array, factor in self._factors.items():
                leaves[array] = leaves[array] * leaves[array].dtype.type(factor)
        return leaves

    def close(self) -> None:
        """Release the slots of this epoch."""
        self._its.close()


class KerasIterations:
    """Makes the iterations of one object that was made by `to_keras()`.

    Args:
        producer: makes the batches.
        owner: the object that stops the producer when it is gone; it is kept alive.
        repeats: True if an iteration goes on with the next epoch where one ends.
    """

    def __init__(self, producer: BatchProducer, owner: object, *, repeats: bool = False) -> None:
        self.producer, self.owner, self.repeats = producer, owner, repeats
        self._looked_at: KerasEpoch | None = None

    @property
    def num_batches(self) -> int | None:
        """Batches of an iteration; None if they are endless or their number is unknown."""
        cardinality = self.producer.outline().cardinality
        return None if self.repeats or cardinality is None or cardinality == math.inf else int(cardinality)

    @property
    def is_endless(self) -> bool:
        """True if an iteration never ends."""
        return self.repeats or self.producer.outline().cardinality == math.inf

    @property
    def fills(self) -> bool:
        """True if the last batch has fillers: Keras distributes it to several devices."""
        batching, counts = self.producer.batching, self.producer.counts
        return batching.host_shard.pads and padded.is_distributed() and counts.rest() < batching.size

    def look(self, number: int, frame: FrameType) -> Leaves:
        """The batch with this number of the next iteration, which still begins with its first one."""
        if self._looked_at is None:
            self._looked_at = KerasEpoch(self.producer, self.owner, frame)
        return self._looked_at.look(number)

    def begin(self, frame: FrameType) -> KerasEpoch:
        """The next epoch: the one that was looked at, if it still is the next."""
        looked_at, self._looked_at = self._looked_at, None
        if looked_at is not None:
            if looked_at.take_up():
                return looked_at
            looked_at.close()
        return KerasEpoch(self.producer, self.owner, frame)


class KerasIterator(Iterator[Any]):
    """The batches of one iteration.

    Args:
        iterations: makes the epochs.
        make: makes the batch that Keras gets from the arrays of a batch.
    """

    def __init__(self, iterations: KerasIterations, make: Callable[[Leaves], Any]) -> None:
        self._iterations, self._make = iterations, make
        self._epoch: KerasEpoch | None = None
        self._looks = 0

    def __next__(self) -> Any:
        return self.take(sys._getframe(1))

    def take(self, frame: FrameType) -> Any:
        """The next batch, pulled in this frame."""
        if self._epoch is None:
            if only_looks(frame):
                self._looks += 1
                return self._make(self._iterations.look(self._looks - 1, frame))
            self._epoch = self._iterations.begin(frame)
        try:
            return self._make(self._epoch.take())
        except StopIteration:
            if not self._iterations.repeats:
                raise
            self._epoch = self._iterations.begin(frame)
            return self._make(self._epoch.take())
