"""Prepares the source for each epoch: applies `on_epoch_end` and the attributes from `Loader.update`.

For epoch n, `on_epoch_end` has been called n times since the source was taken. This holds in every worker, whenever it
was started: the calls are repeated on a fresh copy. An epoch that is still being read keeps its own copy.
"""

from __future__ import annotations

import contextlib
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stoker.plan.permutation import mix
from stoker.protocol.program import Program
from stoker.protocol.random_objects import restore, seed_held, states_of
from stoker.protocol.requests import EpochUpdate, UpdateRequest
from stoker.sources.hooks import has_hook
from stoker.worker.failed import SourceChanged

if TYPE_CHECKING:
    from stoker.protocol.random_objects import Held
    from stoker.worker.user_code.seeding import Seeder


@dataclass(frozen=True)
class _SetAttributes:
    """Step: set the attributes of an update."""

    number: int


@dataclass(frozen=True)
class _EpochTurn:
    """Step: call the source's hooks at the start of an epoch."""

    epoch: int


@dataclass
class SourceCopy:
    """A copy of the program, the steps applied to it, and the epochs that read from it."""

    program: Program
    held: list[Held]
    done: list[_SetAttributes | _EpochTurn] = field(default_factory=list)
    readers: set[int] = field(default_factory=set)


class EpochHooks:
    """Manages the copies of the program in this process.

    Args:
        program: the first copy.
        held: random generators held by its objects.
        again: makes another copy; None if the user's own object is used.
        seeder: sets the random states.
        only: shared record of the steps applied to the user's own object, for all its users; empty before the first.
    """

    def __init__(
        self,
        program: Program,
        held: list[Held],
        again: Callable[[], tuple[Program, list[Held]]] | None,
        seeder: Seeder,
        only: list[SourceCopy] | None = None,
    ) -> None:
        self._again, self._seeder = again, seeder
        self._copies = [SourceCopy(program, held)]
        if again is None and only is not None:
            only[:] = only or self._copies
            self._copies = list(only)
        self._updates: dict[int, tuple[EpochUpdate, ...]] = {}
        self._begins, self._ends = has_hook(program.source, "on_epoch_begin"), has_hook(program.source, "on_epoch_end")

    def note_update(self, message: UpdateRequest) -> None:
        """Record the updates for an epoch that is about to begin."""
        self._updates[message.epoch] = pickle.loads(message.pickled)

    def program_for(self, epoch: int) -> tuple[Program, list[Held]]:
        """The program for an epoch and the generators that it holds; raises what the user's `on_epoch_end` raises."""
        needed = self._needed(epoch)
        its = next((copy for copy in self._copies if copy.done == needed), None) or self._made(needed, epoch)
        its.readers.add(epoch)
        return its.program, its.held

    def leave(self, epoch: int) -> None:
        """Release the copy of an epoch that is no longer read."""
        self._updates.pop(epoch, None)
        for copy in self._copies:
            copy.readers.discard(epoch)
        last = max(self._copies, key=lambda copy: len(copy.done), default=None)  # none if its hook raised
        self._copies = [copy for copy in self._copies if copy.readers or copy is last]

    def _needed(self, epoch: int) -> list[_SetAttributes | _EpochTurn]:
        """The steps that a fresh copy needs for this epoch."""
        updates = self._updates.get(epoch, ())
        if not self._begins and not self._ends:
            return [_SetAttributes(update.number) for update in updates]
        needed: list[_SetAttributes | _EpochTurn] = []
        for turn in range(epoch + 1):
            needed += [_SetAttributes(update.number) for update in updates if min(update.since, epoch) == turn]
            if turn or self._begins:
                needed.append(_EpochTurn(turn))
        return needed

    def _made(self, needed: list[_SetAttributes | _EpochTurn], epoch: int) -> SourceCopy:
        free = [copy for copy in self._copies if not copy.readers and needed[: len(copy.done)] == copy.done]
        its = max(free, key=lambda copy: len(copy.done), default=None) or self._fresh(epoch)
        values = {update.number: update.pickled for update in self._updates.get(epoch, ())}
        try:
            for step in needed[len(its.done) :]:
                if isinstance(step, _SetAttributes):
                    self._set(its.program.source, pickle.loads(values[step.number]))
                else:
                    self._turn(its, step.epoch)
                its.done.append(step)
        except BaseException:
            if self._again is not None:  # the copy is only partly prepared
                self._copies.remove(its)
            raise
        return its

    def _fresh(self, epoch: int) -> SourceCopy:
        if self._again is None:
            raise SourceChanged(
                f"epoch {epoch} needs the source in an earlier state, but the source cannot be copied: it can be read "
                "only forwards, one iteration at a time. End the other iteration first, or make the source picklable."
            )
        copy = SourceCopy(*self._again())
        init: Any = copy.program.worker_init
        if getattr(init, "is_of_source", False):
            self._call(init, copy, mix(copy.program.seed, 11))
        self._copies.append(copy)
        return copy

    def _set(self, source: Any, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(source, name, value)

    def _turn(self, its: SourceCopy, epoch: int) -> None:
        source = its.program.source
        if epoch and self._ends:
            self._call(source.on_epoch_end, its, mix(its.program.seed, epoch, 9))
        if self._begins:
            self._call(source.on_epoch_begin, its, mix(its.program.seed, epoch, 10))

    def _call(self, hook: Callable[[], Any], its: SourceCopy, seed: int) -> None:
        """Call a hook with seeded random states, even if examples are not seeded: all workers must agree."""
        import numpy.random

        keeps = not its.program.seeds_globals
        states = (random.getstate(), numpy.random.get_state(), states_of(its.held)) if keeps else None
        self._seeder.begin(seed)
        random.seed(seed)
        numpy.random.seed(seed & 0xFFFFFFFF)
        seed_held(its.held, seed)
        try:
            with _no_entropy(seed):
                hook()
        finally:
            if states is not None:
                random.setstate(states[0])
                numpy.random.set_state(states[1])
                restore(its.held, states[2])


@contextlib.contextmanager
def _no_entropy(seed: int) -> Iterator[None]:
    """Context in which `np.random.default_rng()` without a seed derives one from `seed`, in this thread."""
    from numpy.random import bit_generator

    module: Any = bit_generator
    before, bits, thread = module.randbits, random.Random(seed).getrandbits, threading.get_ident()
    module.randbits = lambda count: bits(count) if threading.get_ident() == thread else before(count)
    try:
        yield
    finally:
        module.randbits = before
