"""The user's order: the examples that an epoch takes, in which sequence, and which of them form a batch.

An order is a list that every epoch takes, or a function that gives one for each epoch. What the user gives is checked
once, as a whole, and kept as one array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from stoker.errors import OptionError, SourceError, bounded, summary, traceback_of
from stoker.plan.index_lists import ENDLESS, IndexList, UnfitOrder, listed
from stoker.plan.permutation import mix

#: Lists of epochs that were asked for before their epoch began, at most.
_KEPT = 2
#: An iterator is taken to be endless if it gives this many indices more than the source has examples.
_EXCESS = 10_000_000
#: Orders of so few examples may be the same by chance, and so are compared several times.
_TOO_FEW, _TIMES = 100, 20
#: Lines and characters of a traceback in an error message.
_LINES, _CHARACTERS = 32, 10_000


Maker = TypeVar("Maker", bound=Callable[..., "DrawnOrder"])
#: Functions that make orders, which users may pass without calling them.
_MAKERS: list[Any] = []


class DrawnOrder:
    """The base class of orders that are drawn anew for each epoch: what `stoker.weighted` and its kin return.

    Attributes:
        name: what it is, for messages and states.
        length: examples that the source must have; None if any number is right.
        count: indices (or batches) of each epoch; None if epochs may differ.
        most: rows of the largest batch that it can give; None if it gives no batches, or if that is not known.
        due: the epoch that it has to be drawn for next, if what it gives may depend on how often it was drawn; None
            if epochs may be drawn in any sequence.
        repeatable: whether the order of an epoch is the same whenever it is drawn. A function of the user's may depend
            on what happened before.
    """

    name = "order"
    repeatable = True
    length: int | None = None
    count: int | None = None
    most: int | None = None
    due: int | None = None

    def __call__(self, epoch: int, rng: np.random.Generator) -> Any:
        """The order of an epoch: indices or batches of indices."""
        raise NotImplementedError

    def digest(self) -> str:
        """Distinguishes it from others of its kind."""
        return ""

    def copy(self) -> DrawnOrder | None:
        """A copy to try out, which shares no state with this one; None if it cannot be copied."""
        return None


class FunctionOrder(DrawnOrder):
    """The order that a user's function gives: it is not known in advance.

    Args:
        function: the user's function.
    """

    name = "a function"
    repeatable = False

    def __init__(self, function: Callable[[int, np.random.Generator], Any]) -> None:
        self._function = function
        try:
            inspect.signature(function).bind(0, None)
        except TypeError:
            raise OptionError(
                f"order= must be a function of two parameters, `(epoch, rng)`, got {function!r} with "
                f"{inspect.signature(function)}."
            ) from None
        except ValueError:  # a builtin without a signature
            return

    def __call__(self, epoch: int, rng: np.random.Generator) -> Any:
        """What the function returns."""
        return self._function(epoch, rng)


def makes_order(function: Maker) -> Maker:
    """Decorate a function that makes orders, so that it is recognised where it was not called."""
    _MAKERS.append(function)
    return function


@dataclass(eq=False)
class UserOrder:
    """The order that a user gave to a Loader.

    Attributes:
        noun: what it is, as messages call it.
        length: examples in the source.
        seed: the Loader's seed.
        first: the list of epoch 0; if others are drawn, only the bounds of its batches are kept.
        takes: indices in epoch 0.
        draw: gives the order of an epoch; None if each epoch takes the same list.
        count: indices (or batches) of each epoch; None if epochs may differ.
        most: the most rows that a batch may have; 0 if `batch_size` cuts the batches.
        digest: distinguishes it from others of its kind.
    """

    noun: str
    length: int
    seed: int
    first: IndexList
    takes: int
    draw: DrawnOrder | None = None
    count: int | None = None
    most: int = 0
    digest: str = ""
    _made: dict[int, IndexList] = field(default_factory=dict)

    @property
    def in_batches(self) -> bool:
        """True if it gives whole batches."""
        return self.first.bounds is not None

    @property
    def is_drawn(self) -> bool:
        """True if an epoch may differ from the one before it."""
        return self.draw is not None

    @property
    def repeatable(self) -> bool:
        """True if the order of an epoch is the same whenever it is asked for."""
        return self.draw is None or self.draw.repeatable

    @property
    def kind(self) -> str:
        """Distinguishes this order from others, for states."""
        form = ", in batches" if self.in_batches else ""
        return f"{self.noun}{form} {self.digest}".rstrip()

    def bound(self, batch_size: int | None) -> int:
        """Set the most rows that a batch may have, if it gives batches; None for the largest known. Returns it."""
        largest = self.first.most_rows()
        if batch_size is not None and largest > batch_size:
            raise OptionError(f"order= gives whole batches, and {self._too_large(self.first, batch_size)}")
        self.most = batch_size or max(largest, self.most)
        return self.most

    # ── the list of an epoch ─────────────────────────────────────────────────────────────────
    def prepare(self, epoch: int) -> IndexList:
        """The list of an epoch that has not begun, for which the user's function is called once. Raises `SourceError`.

        It is kept until the epoch begins.
        """
        if self.draw is None:
            return self.first
        if epoch not in self._made:
            self.keep(epoch, self._drawn(epoch))
        return self._made[epoch]

    def keep(self, epoch: int, drawn: IndexList) -> None:
        """Keep the list of an epoch until that begins."""
        while len(self._made) >= _KEPT:
            del self._made[next(iter(self._made))]
        self._made[epoch] = drawn

    def take(self, epoch: int) -> IndexList:
        """The list of an epoch that begins."""
        found = self.prepare(epoch)
        if self.repeatable:  # otherwise it is kept, as it might differ if it was drawn again
            self._made.pop(epoch, None)
        return found

    def _drawn(self, epoch: int) -> IndexList:
        assert self.draw is not None
        try:
            self._catch_up(self.draw, epoch)
            found = _called(self.draw, self.seed, epoch, self.length)
            self.check(found)
        except UnfitOrder as unfit:
            raise SourceError(f"order= for epoch {epoch}: {unfit}") from None
        return found

    def _catch_up(self, draw: DrawnOrder, epoch: int) -> None:
        """Draw the epochs before this one that were not drawn, as in the run that is resumed, if that matters.

        Raises `UnfitOrder` if it has gone past this epoch.
        """
        due = draw.due
        if due is None or due == epoch:
            return
        is_lasting = self._is_changed_by_drawing(draw, epoch)
        if due > epoch and is_lasting is not False:
            gives = "gives" if is_lasting else "may give"
            raise UnfitOrder(
                f"{draw.name} has been iterated for epoch {due - 1} already, and {gives} another order each time that "
                "it is iterated, so it cannot go back. Create it and the Loader anew before you load the state. Or "
                "give it a `set_epoch(epoch)` on which alone its order depends."
            )
        for missed in range(due, epoch) if is_lasting is not False else ():
            _called(draw, self.seed, missed, self.length)

    def _is_changed_by_drawing(self, draw: DrawnOrder, epoch: int) -> bool | None:
        """True if drawing an epoch changes what is drawn later, found with a copy; None if that cannot be found."""
        copy = draw.copy()
        if copy is None:
            return None
        try:
            first = _called(copy, self.seed, epoch, self.length)
            times = 1 if len(first.indices) > _TOO_FEW else _TIMES
            return any(_called(copy, self.seed, epoch, self.length).digest != first.digest for _ in range(times))
        except (SourceError, UnfitOrder):  # if the order itself does so too, that is reported
            return None

    def check(self, found: IndexList) -> None:
        """Raise `UnfitOrder` unless the list of an epoch is of the kind that the first one was."""
        if (found.bounds is None) is self.in_batches:
            was, now = ("batches", "single indices") if self.in_batches else ("single indices", "batches")
            raise UnfitOrder(f"it gave {now}, but for epoch 0 {was}. Give the same in all epochs.")
        if self.count is not None and found.elements != self.count:
            what = "batches" if self.in_batches else "indices"
            raise UnfitOrder(
                f"it gave {found.elements:,} {what}, but its len() was {self.count:,} when the Loader was created, and "
                "so would lose some or end early. Correct its `__len__`, or pass a function: its epochs may differ."
            )
        if self.in_batches and found.most_rows() > self.most:
            raise UnfitOrder(self._too_large(found, self.most))

    @staticmethod
    def _too_large(found: IndexList, most: int) -> str:
        batch, rows = found.first_larger(most)
        return (
            f"batch {batch} has {rows:,} indices, more than {most:,}. The memory of a batch is fixed when the Loader "
            "is created, by batch_size= or, without it, by the largest batch of epoch 0. Pass "
            f"batch_size={rows} or more."
        )


def user_order(given: Any, *, length: int, seed: int, shuffle: bool) -> UserOrder:
    """The order that a user gave to a Loader whose source has `length` examples. Raises `OptionError`, `SourceError`.

    A function is called for epoch 0 at once, so that mistakes show early; the epoch then uses the result.
    """
    if isinstance(given, type):
        raise OptionError(f"order= got the class {given.__name__} itself. Pass an instance, `{given.__name__}(...)`.")
    if any(given is maker for maker in _MAKERS):
        needed = [name for name, one in inspect.signature(given).parameters.items() if one.default is one.empty]
        raise OptionError(
            f"order= got the function stoker.{given.__name__} itself. Call it: "
            f"`order=stoker.{given.__name__}({', '.join(needed)})`."
        )
    if not callable(given):
        return _fixed(given, length, seed, shuffle)
    if isinstance(given, DrawnOrder):
        drawn, repair = given, "it determines its own order"
    else:
        drawn, repair = FunctionOrder(given), "shuffle with its `rng`"
    if shuffle:
        raise OptionError(f"order= is {drawn.name}, so shuffle=True does not apply: {repair}. Omit shuffle.")
    if drawn.length is not None and length == ENDLESS:
        raise OptionError(
            f"order={drawn.name} was made for {drawn.length:,} examples, but the source never ends. Pass a function "
            "`(epoch, rng)` that returns the indices of an epoch."
        )
    if drawn.length not in (None, length):
        raise OptionError(f"order={drawn.name} was made for {drawn.length:,} examples, but the source has {length:,}.")
    try:
        first = _called(drawn, seed, 0, length)
        order = UserOrder(drawn.name, length, seed, IndexList(np.empty(0, np.int64), first.bounds), len(first.indices))
        order.draw, order.count, order.digest = drawn, drawn.count, drawn.digest()
        order.most = drawn.most or first.most_rows()
        order.check(first)
    except UnfitOrder as unfit:
        raise OptionError(f"order= for epoch 0: {unfit}") from None
    order.keep(0, first)
    return order


def _fixed(given: Any, length: int, seed: int, shuffle: bool) -> UserOrder:
    """The order of a list that every epoch takes."""
    try:
        if hasattr(type(given), "__next__"):
            raise UnfitOrder(
                f"a {type(given).__name__} can be iterated only once, and so has only one epoch. Pass a list, or a "
                "function `(epoch, rng)` that returns a new one."
            )
        first = listed(given, length, length + _EXCESS)
    except UnfitOrder as unfit:
        raise OptionError(f"order=: {unfit}") from None
    if shuffle and first.bounds is not None:
        raise OptionError(
            "order= gives whole batches, so shuffle=True does not apply. Pass a function that shuffles them for each "
            "epoch: `lambda epoch, rng: [batches[i] for i in rng.permutation(len(batches))]`."
        )
    return UserOrder("a list", length, seed, first, len(first.indices), count=first.elements, digest=first.digest)


def _called(draw: DrawnOrder, seed: int, epoch: int, length: int) -> IndexList:
    """The list that the user's function gives for an epoch. Raises `UnfitOrder`, or `SourceError` for its errors."""
    rng = np.random.default_rng(mix(seed, epoch, 9))
    try:
        return listed(draw(epoch, rng), length, length + _EXCESS)
    except UnfitOrder:
        raise
    except Exception as error:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("stoker."):
            frames = frames.tb_next  # those that called the user's code
        text, its = traceback_of(error.with_traceback(frames or error.__traceback__))
        raise SourceError(
            f"order= raised {summary(error)} for epoch {epoch}\n\n{bounded(text, _LINES, _CHARACTERS)}"
        ) from its
