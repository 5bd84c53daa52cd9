"""The first shards of an epoch, while they are inspected: workers open them and keep their first rows."""

from __future__ import annotations

import pickle
from collections.abc import Collection

from stoker.coordinator.look_options import LookOptions
from stoker.epochs.epoch import Epoch
from stoker.plan.position import ShardProgress
from stoker.protocol.replies import ShardOpenedReply
from stoker.protocol.requests import DescribeRequest, OpenShardRequest
from stoker.structure.collation import Form, Rule, is_stacked_in_place
from stoker.structure.forms import Misfit
from stoker.structure.merging import leaves_open, merged
from stoker.structure.spec import Spec


class ShardedLook:
    """The inspected shards.

    Args:
        options: what must be inspected.
        workers: number of workers that open shards.
        without: examples that kill workers: (shard or None, example).

    Attributes:
        owners: the workers that have shards open, by shard.
    """

    def __init__(self, options: LookOptions, workers: int, without: Collection[tuple[int | None, int]]) -> None:
        self._options, self._workers, self._without = options, workers, without
        self.owners: dict[int, int] = {}
        self.forget()

    def forget(self) -> None:
        """Start again from nothing."""
        self._shards: list[tuple[int, ShardProgress]] = []  # to be opened, in this order
        self._specs: dict[int, list[tuple[Spec, int]]] = {}  # by the shard's place: specs, and how many rows gave them
        self._places: list[int] = []  # of the shards that are opened in the current round
        self._describes = self._options.skips and self._options.collation.function is None
        self.owners.clear()

    def forget_specs(self, shard: int | None) -> None:
        """Open a shard again, as an example of it is left out now."""
        self._specs = {place: specs for place, specs in self._specs.items() if self._shards[place][0] != shard}

    # ── rounds ───────────────────────────────────────────────────────────────────────────────
    def begin_round(self, epoch: Epoch) -> int:
        """Begin the next round. Returns its number of rows, one for each shard to open."""
        self._places = []
        if not self._describes:
            self._shards = self._shards or epoch.first_shards()
            waiting = [place for place in range(len(self._shards)) if place not in self._specs]
            self._places = waiting[: self._workers]
        return max(1, len(self._places))

    def is_describing(self) -> bool:
        """True if this round describes the examples one by one."""
        return not self._places

    def request(self, task: int, epoch: Epoch, number: int, batches: int) -> OpenShardRequest:
        """The request to open shard `number` of this round; `batches`: how many are inspected, of all shards."""
        shard, progress = self._shards[self._places[number]]
        steps = -(-batches // len(self._shards))
        its = tuple(number for of, number in self._without if of == shard)
        return OpenShardRequest(task, epoch.number, shard, progress, steps=steps, without=its, key=epoch.key)

    def description(self, task: int, epoch: int) -> DescribeRequest:
        """The request to describe the shards' examples."""
        return DescribeRequest(task, epoch, without=tuple(self._without))

    def opened(self, worker: int, number: int, reply: ShardOpenedReply) -> None:
        """Record what a worker found when it opened shard `number` of this round."""
        place = self._places[number]
        shard = self._shards[place][0]
        self._specs[place] = pickle.loads(reply.specs) if reply.specs else []
        self.owners.pop(shard, None)
        if reply.is_open:
            self.owners[shard] = worker

    def died(self, worker: int) -> None:
        """Forget the shards that a dead worker had open."""
        for shard in [shard for shard, owner in self.owners.items() if owner == worker]:
            del self.owners[shard]

    # ── the result ───────────────────────────────────────────────────────────────────────────
    def form(self, batches: int) -> Form | None:
        """The form of the batches, from the shards opened so far, in order; None if they do not suffice.

        `batches`: how many must be inspected if a function makes them. Raises `Misfit`.
        """
        found = [one for place in range(len(self._shards)) for one in self._specs.get(place, ())]
        if not found or self._describes:
            return None
        collation, all_opened = self._options.collation, len(self._specs) == len(self._shards)
        if collation.function is not None or collation.default == "asis":
            if len(found) < batches and not all_opened:
                return None
            spec = merged([spec for spec, _ in found[:batches]])
            return Form.of(spec, ["asis"] * len(spec.leaves))
        spec = found[0][0]
        if self._options.one and is_stacked_in_place(spec, collation.rules(spec)):
            return Form.of(spec, collation.rules(spec))
        return self._form_of_many(found, collation.rules(spec), all_opened=all_opened)

    def _form_of_many(self, found: list[tuple[Spec, int]], rules: list[Rule], *, all_opened: bool) -> Form | None:
        """The form of batches whose examples may differ in size, from specs and how many rows gave them."""
        specs, count = list[Spec](), 0
        for spec, rows in found:
            specs.append(spec)
            count += rows
            if count >= self._options.least:
                break
        if count < self._options.least and not all_opened:
            return None
        try:
            spec = merged(specs)
        except Misfit:  # inspect examples one by one, which identifies the misfit
            self._describes = True
            return None
        if leaves_open(spec, rules):
            self._describes = all_opened
            return None
        return Form.of(spec, rules)
