"""How long the trainer waited for batches, and how many were ready as it asked."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Seconds of waiting from which no batch counts as having been ready.
_WAIT = 0.0005


@dataclass
class PullTimes:
    """The pulls of a Loader so far. Used under the producer's lock.

    Attributes:
        pulls: the number of pulls; one may give several small batches.
        batches: the number of batches that they gave.
        examples: the number of examples in these.
        first_examples: those among them that the first pulls of iterations gave.
        bytes: the number of bytes of all.
        waited: seconds in which a batch was asked for and none was ready, but for the first pull of each iteration.
        own: seconds between the end of a pull and the next pull of the same iteration: the trainer's own work.
        first_waits: seconds in which the first batches of iterations were waited for.
        starved: the number of pulls for which no batch was ready, but for the first of each iteration.
        ready: the number of batches that were ready at each pull, all added up.
    """

    pulls: int = 0
    batches: int = 0
    examples: int = 0
    first_examples: int = 0
    bytes: int = 0
    waited: float = 0.0
    own: float = 0.0
    first_waits: float = 0.0
    starved: int = 0
    ready: int = 0
    _last: float = field(default=0.0, repr=False, compare=False)

    def pulled(self, time: float, waited: float, *, ready: int, is_first: bool) -> None:
        """Note a pull that ended at a time, after waiting; `ready`: batches that are ready then.

        `is_first`: whether it was the first pull of its iteration.
        """
        self.pulls += 1
        self.ready += ready if waited <= _WAIT else 0
        if is_first:
            self.first_waits += waited
        else:
            self.waited += waited
            self.own += max(0.0, time - waited - self._last)
            self.starved += waited > _WAIT
        self._last = time

    def gave(self, batches: int, examples: int, nbytes: int, *, is_first: bool) -> None:
        """Note what a pull gave; `is_first` as above."""
        self.batches += batches
        self.examples += examples
        self.first_examples += examples if is_first else 0
        self.bytes += nbytes
