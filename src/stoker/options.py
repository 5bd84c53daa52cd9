"""The arguments of a Loader as one self-validating value."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from stoker.errors import OptionError
from stoker.plan.index_lists import ENDLESS
from stoker.plan.orders import UserOrder, user_order
from stoker.pool import Pool, checked_environment, checked_init, checked_start, checked_timeout
from stoker.runtime.cpus import usable_cpus
from stoker.scheduler.machine import RETRIES
from stoker.sources.recognise import source_of
from stoker.sources.samplers import SamplerOrder, is_sampler, require_whole
from stoker.sources.source import Source
from stoker.structure.collation import Collation, Pad
from stoker.structure.values import short
from stoker.validation import flag, is_flag, real, whole

log = logging.getLogger("stoker")

#: Examples per transfer when they are handed out one by one.
CHUNK = 32
#: Warn about too many workers if there are more than `_MANY`, and more than `_A_CPU` per CPU. `workers="auto"` goes no
#: further.
_MANY, _A_CPU = 8, 4
#: The arguments that a Pool determines.
_OF_POOL = "workers", "timeout", "worker_init", "worker_env", "start"


class _Default(int):
    """A default that is distinguishable from the same number given by the user."""


#: The default of `batch_size`.
BATCH_SIZE: Final = _Default(32)


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """The arguments of `Loader`, documented there. The constructor raises `OptionError` for an invalid value.

    Attributes:
        source: the given source, as a `Source`.
        size: rows of a full batch, of all trainers together; rows per transfer if examples are handed
            out one by one or if the source makes the batches.
        collation: how examples are joined.
        is_batched: True if the source makes the batches itself.
        single: True if examples are handed out one by one.
        given_order: the user's order, or None.
        buffer: size of the shuffle buffer of a source without an index, or 0.
        sums: True if the model's losses are sums over a batch (`pad_remainder="sum"`).
    """

    source: Any
    batch_size: int | None = BATCH_SIZE
    shuffle: bool | int = False
    order: Any = None
    seed: int = 0
    transform: Callable[..., Any] | None = None
    collate: str | Pad | Mapping[Any, str | Pad] | Callable[[list[Any]], Any] = "stack"
    drop_remainder: bool = False
    output_signature: Any = None
    workers: int | Literal["auto"] | None = None
    prefetch: int | None = None
    ahead: bool = True
    memory_limit: int | None = None
    on_error: Literal["raise", "skip"] = "raise"
    retries: int = RETRIES
    timeout: float | None = None
    verify: float = 0.0
    seed_globals: bool = True
    shard_index: int = 0
    shard_count: int = 1
    pad_remainder: bool | Literal["sum"] = False
    batched: bool = False
    share: bool = True
    worker_init: Callable[[], Any] | None = None
    worker_env: Mapping[str, str | None] | None = None
    start: Literal["warm", "fresh"] = "warm"
    lazy: bool = False
    pool: Pool | None = None

    size: int = field(init=False)
    collation: Collation = field(init=False)
    is_batched: bool = field(init=False)
    single: bool = field(init=False)
    given_order: UserOrder | None = field(init=False)
    buffer: int = field(init=False)
    sums: bool = field(init=False)

    def __post_init__(self) -> None:
        self._set(source=source_of(self.source))
        self._set(**self._implied())
        self._set(**self._numbers())
        self._set(**self._functions())
        self._set(**self._batches())
        self._set(**self._order())
        _warn_of_many(self.worker_count)

    @property
    def worker_count(self) -> int:
        """The number of workers at first; by default, one per usable CPU."""
        return usable_cpus() if self.workers is None or self.workers == "auto" else self.workers

    @property
    def most_workers(self) -> int:
        """The largest number of workers that `workers="auto"` may choose, or else their number."""
        return max(_MANY, _A_CPU * usable_cpus()) if self.workers == "auto" else self.worker_count

    @property
    def skips(self) -> bool:
        """True if examples that raise are left out."""
        return self.on_error == "skip"

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _implied(self) -> dict[str, Any]:
        """The arguments that the source determines. Raises `OptionError` if the user gave another value."""
        source: Source = self.source
        defaults = {one.name: one.default for one in fields(self)}
        for name, value in source.implied.items():
            given, default = getattr(self, name), defaults[name]
            left = given is default or (type(given) is type(default) and _is_same(given, default))
            if not left and not _is_same(given, value):
                own = source.own_names.get(name, name)
                raise OptionError(
                    f"{name}={short(given)} was given, but the source, {source.noun}, has {own}={short(value)}. Omit "
                    f"{name}, or change {own} there."
                )
        return dict(source.implied)

    def _numbers(self) -> dict[str, Any]:
        verify = real(self.verify)
        if verify is None or not 0 <= verify <= 1:
            raise OptionError(f"verify must be a fraction between 0 and 1, got {self.verify!r}")
        retries = whole("retries", self.retries, least=0)
        if self.on_error not in ("raise", "skip"):
            raise OptionError(f'on_error must be "raise" or "skip", got {self.on_error!r}')
        timeout = checked_timeout(self.timeout)
        optional = {"prefetch": 1, "memory_limit": 1}
        numbers = {
            name: None if getattr(self, name) is None else whole(name, getattr(self, name), least=least)
            for name, least in optional.items()
        }
        names = "ahead", "drop_remainder", "lazy", "seed_globals", "share"
        flags = {name: flag(name, getattr(self, name)) for name in names}
        shards = {
            "shard_index": whole("shard_index", self.shard_index, least=0),
            "shard_count": whole("shard_count", self.shard_count, least=1),
        }
        seed = whole("seed", self.seed, least=None)
        workers = self.workers
        if isinstance(workers, str) and workers != "auto":
            raise OptionError(f'workers must be an int of at least 0, "auto" or None, got {workers!r}')
        if workers is not None and workers != "auto":
            numbers["workers"] = whole("workers", workers, least=0)
        return {"verify": verify, "retries": retries, "timeout": timeout, "seed": seed, **numbers, **flags, **shards}

    def _functions(self) -> dict[str, Any]:
        if self.transform is not None and not callable(self.transform):
            raise OptionError(f"transform must be callable, got {self.transform!r}")
        checked_init(self.worker_init)
        checked_start(self.start)
        return {"worker_env": checked_environment(self.worker_env), **self._pooled()}

    def _pooled(self) -> dict[str, Any]:
        """The arguments that the pool determines. Raises `OptionError` if the user gave one of them too."""
        pool = self.pool
        if pool is None:
            return {}
        if not isinstance(pool, Pool):
            raise OptionError(f"pool must be a stoker.Pool, got {short(pool)}")
        for one in fields(self):
            if one.name in _OF_POOL and (value := getattr(self, one.name)) not in (one.default, {}):
                raise OptionError(
                    f"{one.name}={short(value)} was given, but so was pool=, which determines it for all its Loaders. "
                    f"Omit {one.name} here, or pass it to stoker.Pool."
                )
        pool.agree(seeds_globals=flag("seed_globals", self.seed_globals))
        return {name: getattr(pool, name) for name in _OF_POOL}

    def _batches(self) -> dict[str, Any]:
        source = self.source
        is_batched = flag("batched", self.batched) or source.batched
        order = None if self.order is None else self._given()
        if order is not None and order.in_batches:
            size, collation = self._ordered_batches(order, is_batched)
        elif is_batched:
            size, collation = _ready(source, self.batch_size, self.collate, self.drop_remainder)
        else:
            size, collation = _batching(self.batch_size, self.collate, self.drop_remainder)
        sums = isinstance(self.pad_remainder, str) and self.pad_remainder == "sum"
        if isinstance(self.pad_remainder, str) and not sums:
            raise OptionError(f'pad_remainder must be True, False or "sum", got {self.pad_remainder!r}')
        return {
            "is_batched": is_batched,
            "size": size,
            "collation": replace(collation, as_torch=source.as_torch),
            "single": self.batch_size is None and not is_batched,
            "given_order": order,
            "sums": sums,
            "pad_remainder": sums or flag("pad_remainder", self.pad_remainder),
        }

    def _given(self) -> UserOrder:
        """The user's order. Raises `OptionError`."""
        source, order, name = self.source, self.order, self.source.own_names.get("order")
        if not source.has_index:
            raise OptionError(
                f"order= needs a source with an index, but {source.noun} gives its examples one after the other. Pass "
                "an object with `__len__` and `__getitem__`, or `stoker.from_arrays(...)`."
            )
        if is_sampler(order):
            require_whole(order, self.shard_count, f"the {name} of the DataLoader" if name else "order=")
            order = SamplerOrder(order, source.payload)
        length = ENDLESS if source.length == math.inf else int(source.length or 0)
        made = user_order(order, length=length, seed=self.seed, shuffle=is_flag(self.shuffle) and bool(self.shuffle))
        if (name == "sampler" and made.in_batches) or (name == "batch_sampler" and not made.in_batches):
            gives, due = (
                ("sequences", "single indices") if made.in_batches else ("single indices", "batches of indices")
            )
            raise OptionError(f"the {name} of the DataLoader gives {gives}. It must give {due}.")
        return made

    def _ordered_batches(self, order: UserOrder, is_batched: bool) -> tuple[int, Collation]:
        """The rows of the largest batch, and how they are joined, if the user's order gives whole batches."""
        what = "order= gives whole batches"
        if is_batched:
            raise OptionError(f"{what}, but so does the source: give single indices, one for each batch of the source.")
        if self.batch_size is None:
            raise OptionError(f"{what}, so batch_size=None does not apply. Omit it, or give single indices.")
        for name in ("drop_remainder", "pad_remainder"):
            if getattr(self, name):
                raise OptionError(f"{what}, so {name} does not apply: the order decides what each batch holds.")
        given = None if self.batch_size is BATCH_SIZE else whole("batch_size", self.batch_size, least=1)
        return order.bound(given), Collation.of(self.collate)

    def _order(self) -> dict[str, Any]:
        shuffle = bool(self.shuffle) if is_flag(self.shuffle) else self.shuffle
        if not self.source.has_index:
            buffer = _buffer(shuffle)
            return {"shuffle": buffer, "buffer": buffer}
        if not isinstance(shuffle, bool):
            raise OptionError(
                f"shuffle must be True or False, got {shuffle!r}: a map-style source is shuffled as a whole."
            )
        if shuffle and self.source.length == math.inf:
            raise OptionError(
                f"shuffle=True permutes the elements of an epoch, but the source, {self.source.noun}, never ends. "
                "Shuffle within the source, or make it finite."
            )
        return {"shuffle": shuffle, "buffer": 0}


def _is_same(one: Any, other: Any) -> bool:
    """True if two values of an argument are equal. Arrays and the like, which give no plain answer, are not."""
    try:
        return one is other or (is_flag(one) == is_flag(other) and bool(one == other))
    except Exception:  # the user's own `__eq__`
        return False


def _warn_of_many(workers: int) -> None:
    """Log a warning if there are far more workers than CPUs."""
    if workers > _MANY and workers > _A_CPU * (cpus := usable_cpus()):
        log.warning(
            "workers=%d on %d CPU%s: each worker is a process with its own copy of the libraries that your code "
            "imports, and the workers take turns, so examples arrive no faster. Omit workers for one per CPU (%d). "
            "More help only code that waits for disks or servers.",
            workers,
            cpus,
            "" if cpus == 1 else "s",
            cpus,
        )


def _ready(source: Source, batch_size: Any, collate: Any, drop_remainder: bool) -> tuple[int, Collation]:
    """Like `_batching`, for a source whose elements are batches: each is transferred alone, as it is."""
    why, repair = source.ready.why, source.ready.repair
    if batch_size is not None and batch_size is not BATCH_SIZE:
        raise OptionError(f"{why}. batch_size must be omitted or None, got {batch_size!r}. {repair}.")
    if collate != "stack":
        raise OptionError(f"{why}. Batches are passed on unchanged, so collate={collate!r} does not apply. {repair}.")
    if drop_remainder:
        raise OptionError(f"{why}. drop_remainder=True does not apply: the source determines the batches.")
    return 1, Collation(default="asis")


def _batching(batch_size: Any, collate: Any, drop_remainder: bool) -> tuple[int, Collation]:
    """The rows per transfer, and how they are joined."""
    collation = Collation.of(collate)
    if batch_size is not None:
        return whole("batch_size", batch_size, least=1), collation
    if collate != "stack":
        raise OptionError(
            f"batch_size=None makes no batches, so collate={collate!r} does not apply. Pass a batch_size."
        )
    if drop_remainder:
        raise OptionError("batch_size=None makes no batches, so drop_remainder=True does not apply.")
    return CHUNK, Collation(default="single")


def _buffer(shuffle: Any) -> int:
    """The size of the shuffle buffer of a source without an index."""
    if shuffle is True:
        raise OptionError(
            "shuffle=True needs a source with an index. A generator or iterable is shuffled through a buffer: pass its "
            "size in examples, for example shuffle=1000."
        )
    return 0 if shuffle is False else whole("shuffle", shuffle, least=0)
