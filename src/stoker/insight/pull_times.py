"""How long the trainer waited for batches, and how many were ready as it asked."""

from __future__ import annotations

import time
from dataclasses import dataclass

#: Seconds of waiting from which no batch counts as having been ready.
_WAIT = 0.0005


@dataclass
class IterationClock:
    """Times the pulls of one iteration.

    Attributes:
        waited: seconds in which a batch was waited for since the last pull that gave one.
        last: when that pull ended, by `time.monotonic`; None before the first one.
    """

    waited: float = 0.0
    last: float | None = None

    @property
    def is_first(self) -> bool:
        """True until a pull has given a batch."""
        return self.last is None


@dataclass
class PullTimes:
    """The pulls of a Loader so far. Used under the producer's lock.

    Attributes:
        pulls: the number of pulls; one may give several small batches.
        first_pulls: those among them that were the first of an iteration.
        batches: the number of batches that pulls gave.
        examples: the number of examples in these.
        first_examples: those among them that first pulls gave.
        bytes: the number of bytes of all.
        waited: seconds in which a batch was asked for and none was ready, but for first pulls.
        own: seconds between the end of a pull and the next pull of the same iteration.
        first_waits: seconds in which first pulls waited.
        starved: the number of pulls for which no batch was ready, but for first pulls.
        ready: the number of batches that were ready at each pull, all added up.
    """

    pulls: int = 0
    first_pulls: int = 0
    batches: int = 0
    examples: int = 0
    first_examples: int = 0
    bytes: int = 0
    waited: float = 0.0
    own: float = 0.0
    first_waits: float = 0.0
    starved: int = 0
    ready: int = 0

    def pulled(self, clock: IterationClock, *, batches: int, examples: int, nbytes: int, ready: int) -> None:
        """Note a pull that ends now and gave so much; `ready`: the number of batches that were ready."""
        now, waited = time.monotonic(), clock.waited
        self.pulls += 1
        self.batches += batches
        self.examples += examples
        self.bytes += nbytes
        self.ready += ready if waited <= _WAIT else 0
        if clock.last is None:
            self.first_pulls += 1
            self.first_examples += examples
            self.first_waits += waited
        else:
            self.waited += waited
            self.own += max(0.0, now - waited - clock.last)
            self.starved += waited > _WAIT
        clock.waited, clock.last = 0.0, now
