"""The epoch that is made ahead: workers make its first batches before an iteration of it begins.

    none ──all batches of the epochs before it are begun──▶ open ──an iteration of it begins──▶ adopted
                                                              └──anything else begins──▶ closed

Its stream is open, but no consumer has it. An iteration that begins adopts the stream if it is of that very epoch.
"""

from __future__ import annotations

from stoker.coordinator.consumption import ConsumptionTracker
from stoker.coordinator.counters import Counters
from stoker.epochs.epoch import Epoch
from stoker.scheduler.events import CloseEvent, Event, OpenEvent
from stoker.scheduler.machine import Scheduler


class EpochAhead:
    """The epoch that is made ahead, if there is one. Used under the producer's lock.

    Args:
        epochs: the epochs whose streams are open, by stream.
        consumption: knows where the next iteration begins.
        scheduler: knows whether workers have anything else to do.
        counters: keeps what is left out of the epoch until that begins.
        allowed: whether source and options allow that an epoch is made ahead.

    Attributes:
        stream: number of its stream, or None.
    """

    def __init__(
        self,
        epochs: dict[int, Epoch],
        consumption: ConsumptionTracker,
        scheduler: Scheduler,
        counters: Counters,
        *,
        allowed: bool,
    ) -> None:
        self._epochs, self._consumption, self._scheduler, self._counters = epochs, consumption, scheduler, counters
        self._allowed = allowed
        self.stream: int | None = None

    def is_due(self) -> bool:
        """True if the next epoch can be opened: it is certain, and all batches of the open streams are begun."""
        may = self._allowed and self.stream is None
        return may and self._consumption.is_next_certain() and self._scheduler.has_begun_all()

    def open(self, stream: int, epoch: Epoch) -> Event:
        """Open the epoch under the number of a stream. Returns the event that begins its first batches."""
        self.stream, self._epochs[stream] = stream, epoch
        self._counters.made_ahead(epoch.number)
        return OpenEvent(stream)

    @property
    def epoch(self) -> Epoch | None:
        """The epoch, if the next iteration begins where it does."""
        epoch = None if self.stream is None else self._epochs[self.stream]
        return epoch if epoch is not None and epoch.iteration.begin == self._consumption.upcoming() else None

    def adopt(self) -> None:
        """Count the epoch, which is the next one, as begun: an iteration has it now."""
        assert self.stream is not None
        epoch = self._epochs[self.stream]
        self._consumption.begin()
        self._consumption.began(epoch)
        self._counters.begun(epoch.number)
        self.stream = None

    def forbid(self) -> list[Event]:
        """Make no more epochs ahead. Returns the events that close the one that is open."""
        self._allowed = False
        return self.close()

    def close(self) -> list[Event]:
        """Give the epoch up. Returns the events that follow."""
        if self.stream is None:
            return []
        stream, self.stream = self.stream, None
        self._counters.given_up(self._epochs[stream].number)
        return [CloseEvent(stream)]
