"""Options, checked, and the stations that follow from them, joined into a `Coordinator`."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import optree

from stoker.coordinator.coordinator import Coordinator
from stoker.coordinator.in_memory import InMemoryProducer
from stoker.coordinator.producer import Streams
from stoker.coordinator.slot_table import AHEAD_MOST, LEASES, SlotTable, promised
from stoker.coordinator.spec_request import LEAST, MOST, Look, SpecRequest
from stoker.engines.changes import Changes
from stoker.engines.engine import Engine
from stoker.engines.snapshot import Snapshot
from stoker.epochs.epoch import Batching, Epoch
from stoker.epochs.index_epoch import IndexEpoch
from stoker.epochs.item_epoch import ItemEpoch
from stoker.epochs.shard_epoch import ShardEpoch
from stoker.epochs.shard_progress import SavedShards
from stoker.errors import OptionError, StateError
from stoker.memory.example_store import ExampleStore
from stoker.memory.slot import Inbox, Slot
from stoker.plan import position as state
from stoker.plan.host_shard import HostShard
from stoker.plan.order import Plan
from stoker.plan.position import Position
from stoker.protocol.program import Program, dump, takes_nothing, takes_rng
from stoker.protocol.transform import called
from stoker.runtime.cpus import usable_cpus
from stoker.runtime.descriptors import require_descriptors
from stoker.runtime.free_memory import fair_share
from stoker.scheduler.machine import SPARE
from stoker.sources.arrays import ArraySource
from stoker.sources.generator import GeneratorSource
from stoker.sources.hooks import has_turns
from stoker.sources.iterable import IterableSource
from stoker.sources.keras_dataset import is_keras
from stoker.sources.map_style import MapSource
from stoker.sources.markers import mentions_marks
from stoker.sources.stored_arrays import StoredRows, is_stored
from stoker.structure.collation import Collation, Form
from stoker.structure.spec import DTYPES, Kind, Leaf, Spec, plain
from stoker.structure.values import STRING
from stoker.validation import flag, is_flag, real, whole

log = logging.getLogger("stoker")

#: Examples that move together when they are handed out one by one.
CHUNK = 32

#: Workers that are too many: more than so many, and more than so many a CPU.
_MANY, _A_CPU = 8, 4
_SIGNED = "as output_signature says"


class _Unsaid(int):
    """The default of an option, which can be told from the same number given by the user."""


#: Examples in a batch where the user does not say; none where the source makes the batches.
BATCH_SIZE: Final = _Unsaid(32)


@dataclass(frozen=True)
class Outline:
    """What is known of the batches before the first one.

    Attributes:
        size: rows of a full batch; of those that move together, when examples are handed out one by one.
        single: whether examples are handed out one by one.
        static_rows: the rows that every batch has, or None.
        cardinality: elements of an epoch: None when nobody knows, `math.inf` when they never end.
    """

    size: int
    single: bool
    static_rows: int | None
    cardinality: float | None


class Stations:
    """The source, the plan and the dispatcher of one Loader; its arguments are the Loader's."""

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int | None,
        shuffle: bool | int,
        seed: int,
        transform: Callable[..., Any] | None,
        collate: Any,
        drop_remainder: bool,
        output_signature: Any,
        workers: int | None,
        prefetch: int | None,
        memory_limit: int | None,
        on_error: str,
        retries: int,
        timeout: float | None,
        verify: float,
        seed_globals: bool,
        shard_index: int,
        shard_count: int,
        pad_remainder: bool | Literal["sum"],
        batched: bool,
        share: bool,
        worker_init: Callable[[], Any] | None,
        worker_env: Mapping[str, str | None] | None,
    ) -> None:
        verified = real(verify)
        if verified is None or not 0 <= verified <= 1:
            raise OptionError(f"verify must be a share between 0 and 1, got {verify!r}")
        self._verify = verified
        self._retries, self._skips = whole("retries", retries, least=0), on_error == "skip"
        if on_error not in ("raise", "skip"):
            raise OptionError(f'on_error must be "raise" or "skip", got {on_error!r}')
        self._timeout = None if timeout is None else real(timeout)
        if timeout is not None and not (self._timeout is not None and 0 < self._timeout < math.inf):
            raise OptionError(f"timeout must be a number of seconds above 0, or None, got {timeout!r}")
        drop_remainder = flag("drop_remainder", drop_remainder)
        shuffle = bool(shuffle) if is_flag(shuffle) else shuffle
        source = StoredRows(source) if is_stored(source) else source
        self.workers = usable_cpus() if workers is None else whole("workers", workers, least=0)
        _warn_of_many(self.workers)
        if transform is not None and not callable(transform):
            raise OptionError(f"transform must be callable, got {transform!r}")
        if worker_init is not None and not takes_nothing(worker_init):
            raise OptionError(f"worker_init must be a function without parameters, got {worker_init!r}")
        self._environment = _checked_environment(worker_env)
        prefetch = None if prefetch is None else whole("prefetch", prefetch, least=1)
        limit = (
            fair_share(promised=promised()) if memory_limit is None else whole("memory_limit", memory_limit, least=1)
        )
        self.is_batched = flag("batched", batched) or is_keras(source)
        if isinstance(source, GeneratorSource | IterableSource):
            self.is_batched |= source.batched
        if self.is_batched:
            size, collation = _ready(source, batch_size, collate, drop_remainder)
        else:
            size, collation = _batching(batch_size, collate, drop_remainder)
        self._single, self._has_function = batch_size is None and not self.is_batched, collation.function is not None
        self._drop, self._seed = drop_remainder, whole("seed", seed, least=None)
        index, count = whole("shard_index", shard_index, least=0), whole("shard_count", shard_count, least=1)
        self.sums = isinstance(pad_remainder, str) and pad_remainder == "sum"
        if isinstance(pad_remainder, str) and not self.sums:
            raise OptionError(f'pad_remainder must be True, False or "sum", got {pad_remainder!r}')
        self.host_shard = HostShard(index, count, self.sums or flag("pad_remainder", pad_remainder))
        self._read(source, size, shuffle, drop_remainder)
        self._shuffle = self._buffer if self._plan is None else shuffle
        bounded = prefetch == 1
        window = 1 if bounded else max(4, min(AHEAD_MOST, 2 * self.workers + 2))
        self.batching = Batching(
            size,
            not drop_remainder,
            self._seed,
            self._buffer,
            window,
            self._single,
            self.host_shard,
            weighs=self.host_shard.pads,
            bounded=bounded,
        )
        self._uneven = transform is not None and mentions_marks(transform)
        self.check_host_shard(self.host_shard)
        length = self._plan.length if self._plan is not None else None
        program = Program(
            None if isinstance(source, IterableSource) else source,
            called(transform),
            takes_rng(transform),
            self._seed,
            length,
            size,
            collation,
            self._buffer if isinstance(source, GeneratorSource) else 0,
            limit,
            self._skips,
            flag("seed_globals", seed_globals),
            self.host_shard.pads,
            flag("share", share) and not has_turns(source),  # a hook shuffles its arrays in place
            worker_init,
        )
        form = None if output_signature is None else _signed(output_signature, collation)
        if isinstance(source, ArraySource) and transform is None and collation.paths and not self.host_shard.pads:
            collation.rules(collation.spec(source[0]))
        self._changes: Changes | None = Changes(
            {"source": program.source, "transform": transform} if transform is not None else {"source": program.source},
            code=self.workers > 0,
        )
        taken = self._taken(program, form)
        self.producer: Streams = taken or self._producer(program, prefetch, form)

    def check_host_shard(self, host_shard: HostShard) -> None:
        """Raise `OptionError` if batches cannot be dealt so."""
        size, dealt = (
            self.batching.size,
            f"shard_count={host_shard.count}" if host_shard.count > 1 else "pad_remainder=True",
        )
        if host_shard.index >= host_shard.count:
            raise OptionError(
                f"shard_index={host_shard.index} must be less than shard_count={host_shard.count}: trainers are "
                "counted from 0."
            )
        if host_shard.count == 1 and not host_shard.pads:
            return
        if self.is_batched:
            raise OptionError(
                f"{dealt} needs to cut batches, and this source makes them itself (batched=True), whole. Give a source "
                "of examples and a batch_size, or give each trainer a source of its own."
            )
        if self._plan is None or self._single:
            what = "batch_size=None" if self._plan is not None else "a generator or iterable"
            raise OptionError(
                f"{dealt} needs numbered batches, and {what} has none. Use a source with an index, and a batch_size."
            )
        if self._uneven or self._skips:
            why = "on_error='skip'" if self._skips else "a transform that returns stoker.SKIP or stoker.Many"
            raise OptionError(f"{dealt} needs to know the rows of each batch beforehand; with {why} nobody does.")
        count = host_shard.count
        if size % count:
            raise OptionError(
                f"batch_size={size} is that of all trainers together, and shard_count={count} does not divide it; "
                f"take {size // count * count or count} or {(size // count + 1) * count}."
            )
        rest = self._plan.length % size
        if 0 < rest < count and not (host_shard.pads or self._drop):
            raise OptionError(
                f"the last batch has {rest} of {size} examples, too few for {host_shard.count} trainers, which take as "
                "many steps each: give drop_remainder=True, or pad_remainder=True to fill it up with sample_weight 0."
            )
        if host_shard.pads and self._drop:
            raise OptionError("drop_remainder=True and pad_remainder=True: the last batch is left out, or filled up.")

    def outline(self, host_shard: HostShard | None = None) -> Outline:
        """What is known of the batches, of this trainer or of one that is dealt this."""
        size, host_shard = self.batching.size, host_shard or self.host_shard
        count = self._count()
        whole_batches = (
            self._drop or host_shard.pads or (count is not None and (count == math.inf or count % size == 0))
        )
        cardinality = count
        if count is not None and math.isfinite(count) and not self._single:
            cardinality = count // size if self._drop else -(-count // size)
        share = size // host_shard.count
        is_known = whole_batches and not (self.is_batched or self._has_function)  # else others decide on the rows
        return Outline(share, self._single, share if is_known else None, cardinality)

    def rest(self) -> int:
        """Examples in the last batch of all trainers together."""
        assert self._plan is not None
        return self._plan.rows(self._plan.batches - 1)

    def state(self, position: Position) -> dict[str, Any]:
        """The dict of a position."""
        return state.told(position, self._seed, self._fingerprint())

    def position(self, told: Any, strict: bool) -> Position:
        """The position that a dict tells, or the start of its epoch if it is foreign; raises `StateError`."""
        position = state.position_of(told, self._seed, self._fingerprint(), strict)
        count = self._count()
        if count is not None and position.taken > (most := self.outline().cardinality or 0):
            raise StateError(f"the state tells of {position.taken:,} batches taken; an epoch has {most:,}.")
        if position.stream is not None:
            SavedShards.of(position.stream)
        return position

    def _fingerprint(self) -> dict[str, Any]:
        """What the batches depend on, beside the user's code, the seed and the epoch."""
        told: dict[str, Any] = {"source": "iterable"}
        if self._map is not None:
            told = {"source": "map-style", "length": self._map.length}
        elif isinstance(self._source, GeneratorSource):
            length = "endless" if self._source.length == math.inf else self._source.length
            shards = {"shards": self._source.count, "open_shards": self._source.open_shards}
            told = {"source": "generator", **shards, "length": length, "batched": False}
        if self.is_batched:
            told["batched"] = True
        size = None if self._single or self.is_batched else self.batching.size
        rest = {"drop_remainder": self._drop, "pad_remainder": self.host_shard.pads}
        return {**told, "batch_size": size, "shuffle": self._shuffle, **rest}

    def update(self, values: Mapping[str, Any]) -> None:
        """See `Loader.update`."""
        names = self._map.names if self._map is not None and not self._is_arrays else frozenset[str]()
        if not names:
            kind = "a generator or iterable" if self._map is None else "a list, or arrays,"
            raise OptionError(
                f"update() sets attributes of a source that is an object of a class of yours, and {kind} has none. "
                "Make a new Loader; or ask `stoker.current().epoch` in your code; or read what changes from a file."
            )
        if unknown := sorted(set(values) - names):
            raise OptionError(
                f"the source has no attribute {', '.join(map(repr, unknown))} that update() could set; it has "
                f"{', '.join(sorted(name for name in names if not name.startswith('_')))}."
            )
        if values:
            self.producer.update(values)
            self._changes = None  # the user knows

    def check(self) -> None:
        """Raise `SourceError` when a map-style source has another length; warn where it is seen to have changed."""
        if self._map is not None:
            self._map.check()
        if self._changes is not None and (name := self._changes.found()) is not None:
            log.warning(
                "the %s has changed since the Loader was made, and its batches do not show that: it is read as it was "
                "then. Give new values by `loader.update(attribute=value)`, or make a new Loader.",
                name,
            )

    def _count(self) -> float | None:
        """Examples of an epoch."""
        if self._uneven or self._skips or self.producer.uneven:
            return None
        if self._plan is not None:
            return self._plan.length
        return None if self._source is None else self._source.length

    def _read(self, source: Any, size: int, shuffle: bool | int, drop_remainder: bool) -> None:
        """Take in the source and its order."""
        self._source, self._map, self._plan, self._buffer = None, None, None, 0
        if isinstance(source, GeneratorSource | IterableSource):
            self._source, self._buffer = source, _buffer(shuffle)
            return
        if not isinstance(shuffle, bool):
            raise OptionError(
                f"shuffle must be True or False, got {shuffle!r}: a map-style source is shuffled as a whole."
            )
        for rows in source.arrays if isinstance(source, ArraySource) else [source]:
            if self.workers and isinstance(rows, StoredRows):
                rows.check()
        self._map, self._is_arrays = MapSource(source), isinstance(source, ArraySource)
        self._plan = Plan(self._map.length, size, shuffle, self._seed, drop_remainder)
        if not self._plan.batches:
            raise OptionError(
                f"drop_remainder=True with batch_size {size} leaves no batch of {self._plan.length} examples; "
                "use a smaller batch_size or drop_remainder=False."
            )

    def _taken(self, program: Program, form: Form | None) -> InMemoryProducer | None:
        """What takes batches from arrays in memory, if that is all there is to do."""
        source, collation = program.source, program.collation
        if not isinstance(source, ArraySource) or program.transform is not None or collation != Collation():
            return None
        if form is not None or self._skips or self.host_shard.pads or not source.is_in_memory():
            return None
        assert self._plan is not None
        spec = collation.spec(source[0])
        epochs = _Epochs(None, self._plan, self.batching, False)
        rows = self.batching.size // self.host_shard.count
        snapshot = Snapshot(program)  # what the trainer writes to the arrays later is not seen, as in workers
        source = snapshot.copy()[0].source
        snapshot.close()
        return InMemoryProducer(epochs, source, Form.of(spec, collation.rules(spec)), rows, program.memory_limit)

    def _producer(self, program: Program, prefetch: int | None, form: Form | None) -> Coordinator:
        from stoker.protocol.requests import RUN

        most = max(AHEAD_MOST, self.workers + 2)
        ahead = prefetch or (min(most, max(2, self._plan.batches)) if self._plan is not None else most)
        count = ahead + LEASES + SPARE
        if self.workers:
            require_descriptors(self.workers, 2 * count + 2)
        slots = [Slot.create("slot") for _ in range(count)]
        inboxes = [Inbox.create("inbox") for _ in range(count)]
        for slot in slots:
            slot.resize(0)
        early = [Slot.create("store")], [Inbox.create("inbox")]  # of examples that are made before the first batch
        engine: Engine
        if self.workers:
            from stoker.engines.processes import ProcessEngine

            memory = slots + early[0], inboxes + early[1]
            engine = ProcessEngine(dump(program), *memory, self.workers, self._timeout, self._environment)
        else:
            from stoker.engines.inline import InlineEngine

            engine = InlineEngine(program, slots + early[0], inboxes + early[1])
        run = RUN if hasattr(type(program.source), "__getitems__") else 1
        rows = self.batching.size // self.host_shard.count
        return Coordinator(
            _Epochs(self._source, self._plan, self.batching, self._uneven),
            SlotTable(
                slots,
                inboxes,
                batch_size=self.batching.size,
                workers=self.workers,
                prefetch=prefetch,
                memory_limit=program.memory_limit,
            ),
            engine,
            workers=self.workers,
            run=run,
            probe=SpecRequest(
                self._look(program, run), max(1, self.workers), ExampleStore(early[0][0]), early[1][0], rows
            ),
            form=form,
            retries=self._retries,
            skips=self._skips,
            verify=self._verify,
            turns=has_turns(program.source),
        )

    def _look(self, program: Program, run: int) -> Look:
        """What must be looked at to find out what batches look like."""
        from stoker.protocol.requests import LOOK_BATCHES, LOOK_CALLS

        collation, calls = program.collation, program.collation.function is not None
        default, memory = collation.default, program.memory_limit // 4
        one = not calls and default == "stack" and not collation.paths and not self._skips
        batches = LOOK_CALLS if calls else LOOK_BATCHES if default == "asis" else 1
        least, most = (0, sys.maxsize) if calls else (0 if default == "asis" else LEAST, MOST)
        its = collation, 1 if self._skips else run, self._skips, memory
        return Look(one, batches, least, most, *its)


@dataclass(frozen=True)
class _Epochs:
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


def _warn_of_many(workers: int) -> None:
    """Tell of workers that are many more than the CPUs."""
    if workers > _MANY and workers > _A_CPU * (cpus := usable_cpus()):
        log.warning(
            "workers=%d on %d CPU%s: each is a process with its own copy of the libraries that your code imports, and "
            "they take turns, so that examples come no faster. Leave workers out for one on each CPU (%d). More are of "
            "use only to code that waits for disks or servers.",
            workers,
            cpus,
            "" if cpus == 1 else "s",
            cpus,
        )


def _ready(source: Any, batch_size: Any, collate: Any, drop_remainder: bool) -> tuple[int, Collation]:
    """The same for a source whose elements are batches: each moves alone and passes as it is."""
    why, repair = "batched=True: each element of the source is a batch", "leave batched out for a source of examples"
    if is_keras(source):
        kind = type(source).__name__
        why = f"{kind} is a Keras dataset, each of whose items is a batch; len() counts batches"
        repair = "to batch by example, give an object that is no PyDataset and returns one example"
    if batch_size is not None and batch_size is not BATCH_SIZE:
        raise OptionError(f"{why}. So batch_size must be left out or None, got {batch_size!r}; {repair}.")
    if collate != "stack":
        raise OptionError(f"{why}, and passes as it is. So collate={collate!r} has no meaning; {repair}.")
    if drop_remainder:
        raise OptionError(f"{why}. So drop_remainder=True has no meaning: the source says which batches there are.")
    return 1, Collation(default="asis")


def _checked_environment(variables: Any) -> dict[str, str | None]:
    """`worker_env`; raises `OptionError` unless it maps names to texts or None."""
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise OptionError(
            f'worker_env must be a dict of environment variables, such as {{"CUDA_VISIBLE_DEVICES": "0"}}, '
            f"got {variables!r}"
        )
    for name, value in variables.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise OptionError(f"worker_env must have names of environment variables, got {name!r}")
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise OptionError(f"worker_env[{name!r}] must be a str, or None to remove the variable, got {value!r}")
    return dict(variables)


def _batching(batch_size: Any, collate: Any, drop_remainder: bool) -> tuple[int, Collation]:
    """Rows of what moves together, and how they are joined."""
    collation = Collation.of(collate)
    if batch_size is not None:
        return whole("batch_size", batch_size, least=1), collation
    if collate != "stack":
        raise OptionError(
            f"batch_size=None makes no batches, so collate={collate!r} has no meaning; give a batch_size."
        )
    if drop_remainder:
        raise OptionError("batch_size=None makes no batches, so drop_remainder=True has no meaning.")
    return CHUNK, Collation(default="single")


def _buffer(shuffle: Any) -> int:
    """The size of the shuffle buffer of a source without an index."""
    if shuffle is True:
        raise OptionError(
            "shuffle=True needs a source with an index; a generator or iterable is shuffled through a buffer: give its "
            "size in examples, for example shuffle=1000."
        )
    return 0 if shuffle is False else whole("shuffle", shuffle, least=0)


def _signed(signature: Any, collation: Collation) -> Form:
    """The form that `output_signature` tells; raises `OptionError`."""
    specs, tree = optree.tree_flatten(plain(signature))
    if not specs:
        raise OptionError(f"output_signature must be nested tf.TensorSpecs, got {signature!r}")
    paths = (accessor.codify("") for accessor in tree.accessors())
    spec = Spec(tree, tuple(_told(path, told) for path, told in zip(paths, specs, strict=True)))
    return Form.of(spec, collation.rules(spec))


def _told(path: str, told: Any) -> Leaf:
    """The leaf that a `tf.TensorSpec`, or a ragged or sparse one, tells of."""
    where = f"output_signature{path}"
    try:
        dtype, dims = np.dtype(told.dtype.as_numpy_dtype), told.shape.as_list()
    except (AttributeError, TypeError):
        raise OptionError(f"{where} must be a tf.TensorSpec (ragged, sparse), got {told!r}") from None
    except ValueError:
        raise OptionError(
            f"{where} must tell the number of dimensions (None for sizes that vary), got {told!r}"
        ) from None
    dtype = STRING if told.dtype.name == "string" else dtype
    if dtype != STRING and dtype.name not in DTYPES:
        raise OptionError(f"{where} tells the dtype {told.dtype.name}, which no batch can hold.")
    if hasattr(told, "ragged_rank"):
        kind = Kind.RAGGED if told.ragged_rank else Kind.DENSE
        return Leaf(path, tuple(dims), dtype, kind, told.ragged_rank, lenient=True, signed=True, origin=_SIGNED)
    kind = Kind.SPARSE if type(told).__name__ == "SparseTensorSpec" else Kind.DENSE
    return Leaf(path, tuple(dims), dtype, kind, lenient=True, signed=True, origin=_SIGNED)
