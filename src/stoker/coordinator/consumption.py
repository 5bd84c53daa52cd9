"""Where training stands: which iteration is read, and how much of it was taken."""

from __future__ import annotations

from collections import deque

from stoker.epochs.epoch import Epoch
from stoker.errors import OptionError, StateError
from stoker.plan.position import Position


class ConsumptionTracker:
    """The iterations of one Loader, as far as they matter for its state. Used under the producer's lock.

    Iterations follow one another; the last one that began is the one that is read. A model that is followed
    (`follow`, `took`) may be behind: batches wait in TensorFlow's hands, maybe those of the next iteration too.
    """

    def __init__(self) -> None:
        self._next = Position()  # where the next iteration begins
        self._begun: deque[Epoch] = deque()  # the one that is read, and, of a model that is followed, those after it
        self._follows = False

    def begin(self) -> Position:
        """Where an iteration begins that is made now."""
        begin, self._next = self._next, Position(self._next.epoch + 1)
        return begin

    def began(self, epoch: Epoch) -> None:
        """An iteration was pulled for the first time."""
        if not self._follows:
            self._begun.clear()
        self._begun.append(epoch)

    def go_to(self, position: Position) -> None:
        """The next iteration begins there; what was read before counts no more."""
        self._next = position
        self._begun.clear()

    def last(self) -> Epoch | None:
        """The last iteration that began."""
        return self._begun[-1] if self._begun else None

    # ── a model that is followed ─────────────────────────────────────────────────────────────
    def follow(self) -> None:
        """From the next iteration on `took` tells what the model took."""
        self._begun.clear()
        self._follows = True

    def let_go(self) -> None:
        """The model takes no more; what it took of the iteration at hand stays known."""
        self._follows = False
        while len(self._begun) > 1:
            self._begun.pop()

    def took(self, batches: int) -> None:
        """The model has taken so many more; beyond the end of an iteration, they are the next one's, if it began."""
        while batches and self._begun:
            iteration = self._begun[0].iteration
            before = iteration.taken or 0
            iteration.taken = min(before + batches, iteration.handed)
            batches -= iteration.taken - before
            if len(self._begun) == 1:
                return
            if batches:
                self._begun.popleft()

    def seen(self) -> int:
        """Batches that the model has taken of its epoch, in earlier runs too."""
        if not self._begun:
            return self._next.taken
        iteration = self._begun[0].iteration
        return iteration.begin.taken + (iteration.taken or 0)

    # ── the state ────────────────────────────────────────────────────────────────────────────
    def position(self, consumed: int | None, cardinality: float | None, *, rolls: bool = True) -> Position:
        """Where training stands.

        Args:
            consumed: batches of the iteration at hand that were taken; None for what is known.
            cardinality: batches of an epoch, if that is known.
            rolls: whether the end of an epoch is told as the start of the next one.
        """
        if not self._begun:
            if consumed:
                raise OptionError(f"consumed={consumed!r}, but no batch was taken yet")
            return self._next
        epoch = self._begun[0]
        iteration = epoch.iteration
        if consumed is None and iteration.taken is None and iteration.handed:
            raise StateError(
                f"TensorFlow pulls batches ahead of the model, so nobody knows how many of these {iteration.handed:,} "
                "it has taken. Tell by `state_dict(consumed=…)`, counted in this iteration, or let "
                "`stoker.keras.ResumableData` count the steps of fit()."
            )
        some = iteration.taken or 0 if consumed is None else consumed
        if not 0 <= some <= iteration.handed:
            raise OptionError(
                f"consumed={consumed!r}: this iteration has handed over {iteration.handed:,} batches so far; count "
                "those taken since it began."
            )
        taken = iteration.begin.taken + some
        if rolls and (taken == cardinality or (iteration.ended and some == iteration.handed)):
            return Position(epoch.number + 1)
        position = epoch.position(taken)
        if position is None:
            raise StateError(
                f"batch {taken:,} of epoch {epoch.number} is too long ago: {iteration.handed:,} batches were handed "
                "over, of a source whose batches have no numbers. Ask more often, or prefetch less."
            )
        return position
