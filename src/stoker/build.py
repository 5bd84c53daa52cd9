"""The composition root: builds the producer of batches from the options of a Loader."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from stoker.coordinator.coordinator import Coordinator
from stoker.coordinator.form_finder import FormFinder
from stoker.coordinator.in_memory import InMemoryProducer
from stoker.coordinator.look_options import LEAST, MOST, LookOptions
from stoker.coordinator.producer import EpochSetup
from stoker.coordinator.slot_table import AHEAD_MOST, LEASES, SlotTable, promised
from stoker.coordinator.source_guard import SourceGuard
from stoker.coordinator.worker_tuner import WorkerTuner
from stoker.engines.changes import Changes
from stoker.engines.engine import Engine
from stoker.engines.snapshot import Snapshot
from stoker.errors import OptionError
from stoker.memory.example_store import ExampleStore
from stoker.memory.slot import Inbox, Slot
from stoker.options import LoaderOptions
from stoker.plan.batching import Batching, EpochCounts
from stoker.plan.host_shard import HostShard
from stoker.plan.index_lists import ENDLESS
from stoker.plan.order import Plan
from stoker.protocol.program import Program, dump, takes_rng
from stoker.protocol.requests import LOOK_BATCHES, LOOK_CALLS, RUN
from stoker.protocol.transform import called
from stoker.runtime.descriptors import require_descriptors
from stoker.runtime.free_memory import fair_share, is_scarce
from stoker.scheduler.auto_workers import AutoWorkers
from stoker.scheduler.slot_ledger import SPARE
from stoker.sources.first_step import after
from stoker.sources.hooks import has_turns
from stoker.sources.map_style import reads_in_runs
from stoker.sources.markers import mentions_marks
from stoker.structure.collation import Collation, Form
from stoker.structure.signature import signed_form

if TYPE_CHECKING:
    from stoker.engines.member import Member
    from stoker.engines.worker_pool import WorkerPool


def build(options: LoaderOptions) -> InMemoryProducer | Coordinator:
    """Builds the producer of batches.

    Arrays in memory without a transform need no workers. Everything else has workers or, with `workers=0`, an engine
    that runs the user's code in the trainer.
    """
    memory_limit = _memory_limit(options)
    if options.worker_count:
        options.source.check_workers()
    plan = _plan(options)
    batching = _batching(options, plan)
    counts = _counts(options, plan, batching)
    counts.check(batching.host_shard)
    program = _program(options, plan, batching, memory_limit)
    form = None
    if options.output_signature is not None:
        form = signed_form(options.output_signature, options.collation)
    _check_paths(options, batching)
    guard = SourceGuard(options.source, _changes(options))
    setup = EpochSetup[Any](options.source.epochs(counts), counts, _fingerprint(options), guard)
    return _in_memory(options, program, form, setup) or _with_engine(options, program, form, setup)


def _memory_limit(options: LoaderOptions) -> int:
    """The number of bytes that the slots may take."""
    budget = None if options.pool is None else options.pool.memory_budget
    limits = [options.memory_limit, None if budget is None else budget.nbytes]
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else fair_share(promised=promised())


def _check_paths(options: LoaderOptions, batching: Batching) -> None:
    """Raise `OptionError` for a path in `collate` that the examples lack, if no user code is needed to look at one."""
    arrays, collation = options.source.arrays, options.collation
    if arrays is not None and not options.transform and collation.paths and not batching.weighs:
        collation.rules(collation.spec(arrays[0]))


def _plan(options: LoaderOptions) -> Plan | None:
    """Which examples form which batch, for a source that is read by index."""
    if not options.source.has_index:
        return None
    endless = options.source.length == math.inf
    length = ENDLESS // options.size * options.size if endless else int(options.source.length or 0)
    order = options.given_order
    plan = Plan(length, options.size, bool(options.shuffle), options.seed, options.drop_remainder, given=order)
    if not plan.batches:
        raise OptionError(
            f"drop_remainder=True with batch_size={options.size} leaves no batch of {plan.takes} examples. Use a "
            "smaller batch_size or drop_remainder=False."
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
        window=1 if bounded else max(4, min(AHEAD_MOST, 2 * options.most_workers + 2)),
        single=options.single,
        host_shard=host_shard,
        weighs=host_shard.pads,
        bounded=bounded,
        sums=options.sums,
        is_batched=options.is_batched,
        is_ordered=options.given_order is not None and options.given_order.in_batches,
        in_runs=options.source.has_index and reads_in_runs(options.source.payload) and not options.skips,
    )


def _counts(options: LoaderOptions, plan: Plan | None, batching: Batching) -> EpochCounts:
    length = options.source.length
    if plan is not None and options.given_order is not None:
        length = plan.takes if plan.is_fixed else None
    return EpochCounts(
        batching,
        plan,
        length=length,
        has_function=options.collation.function is not None,
        skips=options.skips,
        has_marks=options.source.may_skip or (options.transform is not None and mentions_marks(options.transform)),
    )


def _program(options: LoaderOptions, plan: Plan | None, batching: Batching, memory_limit: int) -> Program:
    payload = options.source.payload
    return Program(
        source=payload,
        transform=after(options.source.step, called(options.transform)),
        wants_rng=takes_rng(options.transform),
        seed=options.seed,
        length=plan.length if plan is not None and options.source.length != math.inf else None,
        batch_size=batching.rows,
        collation=options.collation,
        shuffle=options.buffer if options.source.is_sharded else 0,
        memory_limit=memory_limit,
        is_sharded=options.source.is_sharded,
        skips=options.skips,
        seeds_globals=options.seed_globals,
        weighs=batching.weighs,
        shares=options.share and not has_turns(payload),  # a hook shuffles its arrays in place
        worker_init=options.worker_init,
        repeats=options.given_order is not None,
    )


def _changes(options: LoaderOptions) -> Changes:
    """Finds changes of the user's objects, which workers do not see."""
    watched = {"source": options.source.payload}
    if options.transform is not None:
        watched["transform"] = options.transform
    return Changes(watched, code=options.worker_count > 0)


def _fingerprint(options: LoaderOptions) -> dict[str, Any]:
    """Everything that the batches depend on, apart from the user's code, the seed and the epoch."""
    batched = {"batched": True} if options.is_batched else {}
    size = None if options.single or options.is_batched else options.size
    rest: dict[str, Any] = {"drop_remainder": options.drop_remainder, "pad_remainder": bool(options.pad_remainder)}
    if options.given_order is not None:
        rest["order"] = options.given_order.kind
        size = None if options.given_order.in_batches else size
    return {**options.source.fingerprint(), **batched, "batch_size": size, "shuffle": options.shuffle, **rest}


def _in_memory(
    options: LoaderOptions, program: Program, form: Form | None, setup: EpochSetup[Any]
) -> InMemoryProducer | None:
    """A producer that takes batches from arrays in memory, or None if more than that is needed."""
    arrays, collation, batching = options.source.arrays, program.collation, setup.counts.batching
    if arrays is None or program.transform is not None or collation != Collation():
        return None
    if form is not None or options.skips or batching.weighs or not arrays.is_in_memory():
        return None
    spec = collation.spec(arrays[0])
    snapshot = Snapshot(program)  # as in workers, later writes of the trainer to the arrays are not seen
    copies = snapshot.copy()[0].source
    snapshot.close()
    return InMemoryProducer(setup, copies, Form.of(spec, collation.rules(spec)), batching.rows, program.memory_limit)


def _with_engine(options: LoaderOptions, program: Program, form: Form | None, setup: EpochSetup[Any]) -> Coordinator:
    workers, counts = options.worker_count, setup.counts
    most = max(AHEAD_MOST, options.most_workers + 2)
    ahead = options.prefetch or (min(most, max(2, counts.plan.batches)) if counts.plan is not None else most)
    count = ahead + LEASES + SPARE
    if workers:
        require_descriptors(options.most_workers, 2 * count + 2)
    slots = [Slot.create("slot") for _ in range(count)]
    inboxes = [Inbox.create("inbox") for _ in range(count)]
    for slot in slots:
        slot.resize(0)
    store, store_inbox = Slot.create("store"), Inbox.create("inbox")  # for examples made before the first batch
    run = RUN if reads_in_runs(program.source) else 1
    look = _look(options, program, run)
    rows = counts.batching.rows
    if options.given_order is not None and options.given_order.in_batches:  # others may be smaller
        rows = max(1, options.given_order.first.least_rows() // options.shard_count)
    slot_table = SlotTable(
        slots,
        inboxes,
        batch_size=counts.batching.rows,
        workers=workers,
        prefetch=options.prefetch,
        memory_limit=program.memory_limit,
        budget=None if options.pool is None else options.pool.memory_budget,
    )
    return Coordinator(
        setup,
        options,
        slot_table,
        _engine(options, program, [*slots, store], [*inboxes, store_inbox]),
        finder=FormFinder(look, max(1, workers), store=ExampleStore(store), inbox=store_inbox, size=rows),
        form=form,
        run=run,
        turns=has_turns(program.source),
        goes_ahead=_goes_ahead(options),
        makes_early=program.source is not None and options.prefetch != 1,
        tuner=_tuner(options, slot_table) if options.workers == "auto" else None,
    )


def _tuner(options: LoaderOptions, slot_table: SlotTable) -> WorkerTuner:
    def has_room() -> bool:
        return not is_scarce(promised=promised())

    return WorkerTuner(AutoWorkers(options.worker_count, options.most_workers, has_room), slot_table)


def _goes_ahead(options: LoaderOptions) -> bool:
    """True if the first batches of an epoch may be made before it begins: nothing that they depend on can change."""
    is_fixed = options.source.repeatable and not has_turns(options.source.payload)
    is_fixed = is_fixed and (options.given_order is None or options.given_order.repeatable)
    return options.ahead and is_fixed and options.prefetch != 1 and options.worker_count > 0


def _engine(options: LoaderOptions, program: Program, slots: list[Slot], inboxes: list[Inbox]) -> Engine:
    if options.worker_count:
        from stoker.engines.processes import ProcessEngine

        return ProcessEngine(dump(program), slots, inboxes, join=_join(options), timeout=options.timeout)
    from stoker.engines.inline import InlineEngine

    return InlineEngine(program, slots, inboxes)


def _join(options: LoaderOptions) -> Callable[[Member], WorkerPool]:
    """Finds the workers of a Loader: those of its Pool, or its own."""
    from stoker.engines.interpreters import Interpreters
    from stoker.engines.worker_pool import WorkerPool

    if options.pool is not None:
        return options.pool.join
    interpreters = partial(Interpreters, dict(options.worker_env or {}))
    own = WorkerPool(options.worker_count, interpreters, forks=options.start == "warm")

    def join(member: Member) -> WorkerPool:
        own.join(member)
        return own

    return join


def _look(options: LoaderOptions, program: Program, run: int) -> LookOptions:
    """The examples to inspect in order to find the form of the batches."""
    collation, calls = program.collation, program.collation.function is not None
    default = collation.default
    return LookOptions(
        one=not calls and default == "stack" and not collation.paths and not options.skips,
        batches=LOOK_CALLS if calls else LOOK_BATCHES if default == "asis" else 1,
        least=0 if calls or default == "asis" else LEAST,
        most=sys.maxsize if calls else MOST,
        collation=collation,
        run=1 if options.skips else run,
        skips=options.skips,
        memory=program.memory_limit // 4,
    )
