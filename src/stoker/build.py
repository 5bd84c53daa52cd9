"""The composition root: builds the producer of batches from the options of a Loader."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stoker.coordinator.coordinator import Coordinator
from stoker.coordinator.in_memory import InMemoryProducer
from stoker.coordinator.producer import EpochProducer, EpochSetup
from stoker.coordinator.slot_table import AHEAD_MOST, LEASES, SlotTable, promised
from stoker.coordinator.source_guard import SourceGuard
from stoker.coordinator.spec_request import LEAST, MOST, Look, SpecRequest
from stoker.engines.changes import Changes
from stoker.engines.engine import Engine
from stoker.engines.snapshot import Snapshot
from stoker.epochs.epoch import Epoch
from stoker.epochs.index_epoch import IndexEpoch
from stoker.epochs.item_epoch import ItemEpoch
from stoker.epochs.shard_epoch import ShardEpoch
from stoker.errors import OptionError
from stoker.memory.example_store import ExampleStore
from stoker.memory.slot import Inbox, Slot
from stoker.options import LoaderOptions
from stoker.plan.batching import Batching, EpochCounts
from stoker.plan.host_shard import HostShard
from stoker.plan.order import Plan
from stoker.plan.position import Position
from stoker.protocol.program import Program, dump, takes_rng
from stoker.protocol.requests import LOOK_BATCHES, LOOK_CALLS, RUN
from stoker.protocol.transform import called
from stoker.runtime.descriptors import require_descriptors
from stoker.runtime.free_memory import fair_share
from stoker.scheduler.slot_ledger import SPARE
from stoker.sources.arrays import ArraySource
from stoker.sources.generator import GeneratorSource
from stoker.sources.hooks import has_turns
from stoker.sources.iterable import IterableSource
from stoker.sources.map_style import MapSource
from stoker.sources.markers import mentions_marks
from stoker.sources.stored_arrays import StoredRows
from stoker.structure.collation import Collation, Form
from stoker.structure.signature import signed_form


def build(options: LoaderOptions) -> EpochProducer:
    """Builds the producer of batches.

    Arrays in memory without a transform need no workers. Everything else has workers or, with `workers=0`, an engine
    that runs the user's code in the trainer.
    """
    memory_limit = fair_share(promised=promised()) if options.memory_limit is None else options.memory_limit
    source = _map_source(options)
    plan = _plan(options, source)
    batching = _batching(options, plan)
    counts = _counts(options, plan, batching)
    counts.check(batching.host_shard)
    program = _program(options, plan, batching, memory_limit)
    form = None
    if options.output_signature is not None:
        form = signed_form(options.output_signature, options.collation)
    collation = options.collation
    if isinstance(options.source, ArraySource) and not options.transform and collation.paths and not batching.weighs:
        collation.rules(collation.spec(options.source[0]))  # report a missing path at once
    setup = EpochSetup(
        _EpochMaker(None if options.has_index else options.source, plan, batching, counts.has_marks),
        counts,
        _fingerprint(options, source),
        _guard(options, program, source),
    )
    return _in_memory(options, program, form, setup) or _with_workers(options, program, form, setup)


def _map_source(options: LoaderOptions) -> MapSource | None:
    """The trainer's view of a source that is read by index, or None for other sources."""
    if not options.has_index:
        return None
    source = options.source
    for rows in source.arrays if isinstance(source, ArraySource) else [source]:
        if options.worker_count and isinstance(rows, StoredRows):
            rows.check()
    return MapSource(source)


def _plan(options: LoaderOptions, source: MapSource | None) -> Plan | None:
    if source is None:
        return None
    plan = Plan(source.length, options.size, bool(options.shuffle), options.seed, options.drop_remainder)
    if not plan.batches:
        raise OptionError(
            f"drop_remainder=True with batch_size {options.size} leaves no batch of {plan.length} examples; "
            "use a smaller batch_size or drop_remainder=False."
        )
    return plan


def _batching(options: LoaderOptions, plan: Plan | None) -> Batching:
    host_shard = HostShard(options.shard_index, options.shard_count, bool(options.pad_remainder))
    bounded = options.prefetch == 1
    return Batching(
        options.size,
        not options.drop_remainder,
        options.seed,
        options.buffer,
        window=1 if bounded else max(4, min(AHEAD_MOST, 2 * options.worker_count + 2)),
        single=options.single,
        host_shard=host_shard,
        weighs=host_shard.pads,
        bounded=bounded,
        sums=options.sums,
        is_ready=options.is_batched,
    )


def _counts(options: LoaderOptions, plan: Plan | None, batching: Batching) -> EpochCounts:
    return EpochCounts(
        batching,
        plan,
        length=plan.length if plan is not None else options.source.length,
        has_function=options.collation.function is not None,
        skips=options.skips,
        has_marks=options.transform is not None and mentions_marks(options.transform),
    )


def _program(options: LoaderOptions, plan: Plan | None, batching: Batching, memory_limit: int) -> Program:
    source = options.source
    return Program(
        source=None if isinstance(source, IterableSource) else source,
        transform=called(options.transform),
        wants_rng=takes_rng(options.transform),
        seed=options.seed,
        length=plan.length if plan is not None else None,
        batch_size=batching.rows,
        collation=options.collation,
        shuffle=options.buffer if isinstance(source, GeneratorSource) else 0,
        memory_limit=memory_limit,
        skips=options.skips,
        seeds_globals=options.seed_globals,
        weighs=batching.weighs,
        shares=options.share and not has_turns(source),  # a hook shuffles its arrays in place
        worker_init=options.worker_init,
    )


def _guard(options: LoaderOptions, program: Program, source: MapSource | None) -> SourceGuard:
    watched = {"source": program.source}
    if options.transform is not None:
        watched["transform"] = options.transform
    is_object = not isinstance(options.source, ArraySource)
    return SourceGuard(source, is_object, Changes(watched, code=options.worker_count > 0))


def _fingerprint(options: LoaderOptions, source: MapSource | None) -> dict[str, Any]:
    """Everything that the batches depend on, apart from the user's code, the seed and the epoch."""
    its: dict[str, Any] = {"source": "iterable"}
    if source is not None:
        its = {"source": "map-style", "length": source.length}
    elif isinstance(options.source, GeneratorSource):
        generator = options.source
        length = "endless" if generator.length == float("inf") else generator.length
        shards = {"shards": generator.count, "open_shards": generator.open_shards}
        its = {"source": "generator", **shards, "length": length, "batched": False}
    if options.is_batched:
        its["batched"] = True
    size = None if options.single or options.is_batched else options.size
    rest = {"drop_remainder": options.drop_remainder, "pad_remainder": bool(options.pad_remainder)}
    return {**its, "batch_size": size, "shuffle": options.shuffle, **rest}


def _in_memory(
    options: LoaderOptions, program: Program, form: Form | None, setup: EpochSetup
) -> InMemoryProducer | None:
    """A producer that takes batches from arrays in memory, or None if more than that is needed."""
    source, collation, batching = program.source, program.collation, setup.counts.batching
    if not isinstance(source, ArraySource) or program.transform is not None or collation != Collation():
        return None
    if form is not None or options.skips or batching.weighs or not source.is_in_memory():
        return None
    spec = collation.spec(source[0])
    snapshot = Snapshot(program)  # as in workers, later writes of the trainer to the arrays are not seen
    source = snapshot.copy()[0].source
    snapshot.close()
    return InMemoryProducer(setup, source, Form.of(spec, collation.rules(spec)), batching.rows, program.memory_limit)


def _with_workers(options: LoaderOptions, program: Program, form: Form | None, setup: EpochSetup) -> Coordinator:
    workers, counts = options.worker_count, setup.counts
    most = max(AHEAD_MOST, workers + 2)
    ahead = options.prefetch or (min(most, max(2, counts.plan.batches)) if counts.plan is not None else most)
    count = ahead + LEASES + SPARE
    if workers:
        require_descriptors(workers, 2 * count + 2)
    slots = [Slot.create("slot") for _ in range(count)]
    inboxes = [Inbox.create("inbox") for _ in range(count)]
    for slot in slots:
        slot.resize(0)
    store, store_inbox = Slot.create("store"), Inbox.create("inbox")  # for examples made before the first batch
    run = RUN if hasattr(type(program.source), "__getitems__") else 1
    look = _look(options, program, run)
    return Coordinator(
        setup,
        SlotTable(
            slots,
            inboxes,
            batch_size=counts.batching.rows,
            workers=workers,
            prefetch=options.prefetch,
            memory_limit=program.memory_limit,
        ),
        _engine(options, program, [*slots, store], [*inboxes, store_inbox]),
        workers=workers,
        run=run,
        probe=SpecRequest(look, max(1, workers), ExampleStore(store), store_inbox, counts.batching.rows),
        form=form,
        retries=options.retries,
        skips=options.skips,
        verify=options.verify,
        turns=has_turns(program.source),
    )


def _engine(options: LoaderOptions, program: Program, slots: list[Slot], inboxes: list[Inbox]) -> Engine:
    if options.worker_count:
        from stoker.engines.processes import ProcessEngine

        environment = dict(options.worker_env or {})
        return ProcessEngine(dump(program), slots, inboxes, options.worker_count, options.timeout, environment)
    from stoker.engines.inline import InlineEngine

    return InlineEngine(program, slots, inboxes)


def _look(options: LoaderOptions, program: Program, run: int) -> Look:
    """The examples to inspect in order to find the form of the batches."""
    collation, calls = program.collation, program.collation.function is not None
    default = collation.default
    return Look(
        one=not calls and default == "stack" and not collation.paths and not options.skips,
        batches=LOOK_CALLS if calls else LOOK_BATCHES if default == "asis" else 1,
        least=0 if calls or default == "asis" else LEAST,
        most=sys.maxsize if calls else MOST,
        collation=collation,
        run=1 if options.skips else run,
        skips=options.skips,
        memory=program.memory_limit // 4,
    )


@dataclass(frozen=True)
class _EpochMaker:
    """Makes the epochs of one source."""

    source: Any
    plan: Plan | None
    batching: Batching
    uneven: bool

    def __call__(self, begin: Position, tell: Callable[[int, bool], None]) -> Epoch:
        if self.plan is not None:
            return IndexEpoch(begin, self.batching, self.plan, uneven=self.uneven)
        if isinstance(self.source, GeneratorSource):
            return ShardEpoch(begin, self.batching, self.source, uneven=self.uneven)
        return ItemEpoch(begin, self.batching, self.source, tell, uneven=self.uneven)
