"""What batches look like is asked of a worker before the first one is made: the question, and how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stoker.dispatch.inquest import IN_A_ROW
from stoker.epochs import Epoch, ItemEpoch
from stoker.memory import Phase, Place
from stoker.worker.messages import Describe


@dataclass(eq=False)
class Attempt:
    """One attempt, and how it failed; those who waited for it are told."""

    error: BaseException | None = None


class Probe:
    """The question. Used under the dispatcher's lock.

    Args:
        look: items of an iterable that are looked at.
    """

    def __init__(self, look: int) -> None:
        self._look = look
        self.without: set[tuple[int, int]] = set()  # examples that kill workers, by shard or -1
        self._epoch: Epoch | None = None  # the next one: what is pulled for the question is read again
        self.attempt: Attempt | None = None  # under way

    def begin(self, new_epoch: Callable[[], Epoch]) -> None:
        """Start to pull the items that are looked at."""
        self._epoch = self._epoch or new_epoch()
        if isinstance(self._epoch, ItemEpoch):
            self._epoch.puller.want(self._look)

    def is_ready(self) -> bool:
        """Whether the items are there."""
        epoch = self._epoch
        return not isinstance(epoch, ItemEpoch) or epoch.puller.pulled >= self._look or epoch.puller.ended is not None

    def raised(self) -> BaseException | None:
        """What the iterable raised instead of its first item; the attempt is over then."""
        epoch = self._epoch
        if not isinstance(epoch, ItemEpoch) or epoch.puller.ended is None or epoch.puller.in_sight():
            return None
        error = epoch.puller.ended.error
        if error is not None:
            epoch.close()
            self._epoch = self.attempt = None
        return error

    def question(self, task: int, slot: int, put: Callable[[int, bytes], None]) -> Describe:
        """What a worker is asked; items are put into the inbox of `slot`."""
        if not isinstance(self._epoch, ItemEpoch):
            return Describe(task, without=tuple(self.without))
        items = self._epoch.puller.peek(self._look)
        put(slot, b"".join(items))
        return Describe(task, slot, len(items), tuple(self.without))

    def look_further(self) -> bool:
        """No example was found: whether there is more to look at. Whoever waits asks again."""
        epoch = self._epoch
        if not isinstance(epoch, ItemEpoch):
            return False
        if epoch.puller.ended is not None and epoch.puller.in_sight() <= self._look:
            return False
        self._look *= 2
        self.attempt = None
        return True

    def leave_out(self, place: Place) -> bool:
        """Look at other examples than the one that a worker died at, if it is known. Whoever waits asks again."""
        example = -1 if place.shard is None else place.shard, place.example
        if place.example is None or place.phase is not Phase.READING or example in self.without:
            return False
        if len(self.without) >= IN_A_ROW:
            return False
        self.without.add((example[0], place.example))
        self.attempt = None
        return True

    def failed(self, error: BaseException) -> None:
        """The attempt is over; the next one may do better."""
        assert self.attempt is not None
        self.attempt.error, self.attempt = error, None

    def give_epoch(self, epoch: Epoch) -> None:
        """Take it back: nobody reads it yet."""
        self._epoch = epoch

    def take_epoch(self) -> Epoch | None:
        """The epoch whose items were looked at, to be read now; None when there is none."""
        epoch, self._epoch = self._epoch, None
        return epoch
