"""The position of training: the current iteration, and how much of it was taken."""

from __future__ import annotations

from collections import deque

from stoker.epochs.epoch import Epoch
from stoker.errors import OptionError, StateError
from stoker.plan.position import Iteration, Position


class ConsumptionTracker:
    """Tracks the iterations of one Loader, as far as its state needs them. Used under the producer's lock.

    Iterations follow one another, and the last one to begin is the current one. A model that is followed (`follow`,
    `took`) may lag behind, because TensorFlow buffers batches, possibly even those of the next iteration.
    """

    def __init__(self) -> None:
        self._next = Position()  # where the next iteration will begin
        self._begun: deque[Epoch] = deque()  # the current one and, while a model is followed, those after it
        self._follows = False
        self._put_back: Epoch | None = None  # an iteration at which a consumer only looked; it may be continued

    def upcoming(self) -> Position:
        """The position at which the next iteration will begin."""
        return self._next

    def is_next_certain(self) -> bool:
        """True if the next iteration is the epoch after the current one, unless a position is loaded before."""
        return bool(self._begun) and self._put_back is None

    def begin(self) -> Position:
        """The position at which a new iteration begins now. The one after it begins with the next epoch."""
        begin, self._next = self._next, Position(self._next.epoch + 1)
        self._put_back = None
        return begin

    def began(self, epoch: Epoch) -> None:
        """Note that an iteration was pulled for the first time."""
        if not self._follows:
            self._begun.clear()
        self._begun.append(epoch)

    def go_to(self, position: Position) -> None:
        """Let the next iteration begin at `position`. Earlier iterations no longer count."""
        self._next, self._put_back = position, None
        self._begun.clear()

    # ── looking ahead ────────────────────────────────────────────────────────────────────────
    def put_back(self, iteration: Iteration) -> None:
        """Count an iteration that has just begun as one that has not: its consumer only looked at a batch."""
        if self._begun and self._begun[-1].iteration is iteration:
            self._put_back = self._begun.pop()
            self._next = iteration.begin

    def take_up(self, iteration: Iteration) -> bool:
        """Count an iteration that was put back as begun. False if it is no longer the next one."""
        epoch = self._put_back
        if epoch is None or epoch.iteration is not iteration:
            return False
        self.begin()
        self.began(epoch)
        return True

    def outdate(self) -> None:
        """Let the next iteration be a new one, because the batches of one that was put back are outdated."""
        self._put_back = None

    def last(self) -> Epoch | None:
        """The last iteration that began."""
        return self._begun[-1] if self._begun else None

    # ── following a model ────────────────────────────────────────────────────────────────────
    def follow(self) -> None:
        """Count what the model took by calls of `took`, from the next iteration on."""
        self._begun.clear()
        self._follows = True

    def let_go(self) -> None:
        """Stop following the model. What it took of the current iteration remains known."""
        self._follows = False
        while len(self._begun) > 1:
            self._begun.pop()

    def took(self, batches: int) -> None:
        """Add `batches` that the model took. Any beyond an iteration's end count for the next, if it has begun."""
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
        """Number of batches that the model has taken of its epoch, including those of earlier runs."""
        if not self._begun:
            return self._next.taken
        iteration = self._begun[0].iteration
        return iteration.begin.taken + (iteration.taken or 0)

    # ── the state ────────────────────────────────────────────────────────────────────────────
    def position(self, consumed: int | None, cardinality: float | None, *, rolls: bool = True) -> Position:
        """The position of training.

        Args:
            consumed: number of batches taken from the current iteration; None to use the tracked number.
            cardinality: number of batches of every epoch, if known.
            rolls: whether the end of an epoch is reported as the start of the next one.
        """
        if not self._begun:
            if consumed:
                raise OptionError(f"consumed={consumed!r}, but no batch has been taken yet")
            return self._next
        epoch = self._begun[0]
        iteration = epoch.iteration
        if (total := epoch.total()) is not None:
            cardinality = total
        if consumed is None and iteration.taken is None and iteration.handed:
            raise StateError(
                f"Batches are pulled ahead of the model, so it is unknown how many of these {iteration.handed:,} it "
                "has taken. Pass `state_dict(consumed=…)`, counted in this iteration, or let "
                "`stoker.keras.ResumableData` count the steps of fit()."
            )
        some = iteration.taken or 0 if consumed is None else consumed
        if not 0 <= some <= iteration.handed:
            raise OptionError(
                f"consumed={consumed!r}, but this iteration has handed over {iteration.handed:,} batches so far. Count "
                "those taken since it began."
            )
        taken = iteration.begin.taken + some
        if rolls and (taken == cardinality or (iteration.ended and some == iteration.handed)):
            return Position(epoch.number + 1)
        position = epoch.position(taken)
        if position is None:
            raise StateError(
                f"the position after batch {taken:,} of epoch {epoch.number} is no longer kept: {iteration.handed:,} "
                "batches were handed over, and this source's batches are not numbered. Save more often, or prefetch "
                "less."
            )
        return position
