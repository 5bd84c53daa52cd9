"""PyTorch's `DataLoader`, whose options become arguments of the Loader."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from stoker.errors import OptionError
from stoker.sources.classes import TORCH, inherits
from stoker.sources.source import ReadyBatches
from stoker.sources.torch_dataset import TorchSource
from stoker.sources.torch_iterable import SHARDS, TorchIterableSource
from stoker.sources.torch_worker import DatasetInit
from stoker.validation import whole

log = logging.getLogger("stoker")

#: What a DataLoader calls the Loader's arguments, where the names differ.
_OWN_NAMES = {
    "drop_remainder": "drop_last",
    "seed": "generator",
    "collate": "collate_fn",
    "worker_init": "worker_init_fn",
}
_PLAIN = ReadyBatches(
    "the DataLoader has batch_size=None: each element of its dataset is passed on as it is",
    "Give the DataLoader a batch_size",
)
_LOADER = "torch.utils.data.dataloader", "DataLoader"
_SAMPLERS, _COLLATE = "torch.utils.data.sampler", "torch.utils.data._utils.collate"
#: Options that change no batch, with the values that they have if they are not set.
_UNUSED = {
    "num_workers": (0,),
    "prefetch_factor": (None, 2),
    "persistent_workers": (False,),
    "pin_memory": (False,),
    "multiprocessing_context": (None,),
    "in_order": (True,),
}


def from_torch(dataset: Any, *, shards: int | None = None) -> TorchSource | TorchIterableSource:
    """A source of the examples of a PyTorch dataset, or of all that a `torch.utils.data.DataLoader` says.

    `Loader(dataset)` and `Loader(dataloader)` do the same; only `shards` needs this function. Batches have the values,
    dtypes and structure that PyTorch's `default_collate` gives them: unlike elsewhere, a list in an example is a
    container, even a list of numbers. Tuples stay tuples. Strings become arrays.

    A DataLoader determines `batch_size`, `drop_remainder` (`drop_last`), the order (`shuffle`, `sampler`,
    `batch_sampler`), `collate` (`collate_fn`), `worker_init` (`worker_init_fn`), `seed` (that of its `generator`) and
    `timeout`. With its `batch_size=None`, each element is passed on as it is. `num_workers`, `prefetch_factor`,
    `persistent_workers`, `pin_memory`, `multiprocessing_context` and `in_order` change no batch and are not used, which
    is logged.

    An `IterableDataset` is read in shards. Each is what PyTorch calls a worker: it has a copy of the dataset, and
    `torch.utils.data.get_worker_info()` gives the shard's number as `id` and the number of shards as `num_workers`,
    regardless of how many processes read them. The dataset must read only its part. Its `set_epoch(epoch)`, if it has
    that, is called for each epoch. One batch is taken from each shard in turn, and the rows left at their ends are
    joined.

    Args:
        dataset: a `Dataset`, an `IterableDataset`, a `DataLoader`, or any object with `__len__` and `__getitem__`.
        shards: shards of an `IterableDataset`. None takes the DataLoader's `num_workers`, or else 16. With
            `num_workers=0` there is a single shard, and `get_worker_info()` returns None.

    Raises:
        SourceError: the dataset has no length, no examples or no `__getitem__`.
        OptionError: the DataLoader has an option that cannot be carried over, or `shards` is invalid.

    Example:
        >>> import stoker
        >>> source = stoker.from_torch([([float(i), 0.5], i) for i in range(4)])
        >>> with stoker.Loader(source, batch_size=2, workers=0) as loader:
        ...     next(iter(loader))
        ([array([0., 1.]), array([0.5, 0.5])], array([0, 1]))
    """
    count = None if shards is None else whole("shards", shards, least=1)
    if inherits(dataset, "DataLoader", *TORCH):
        return _of_loader(dataset, count)
    if inherits(dataset, "IterableDataset", *TORCH):
        return TorchIterableSource(dataset, count or SHARDS, is_default=count is None)
    return _by_index(dataset, count)


def _by_index(dataset: Any, shards: int | None) -> TorchSource:
    if shards is not None:
        raise OptionError(
            f"shards={shards} applies to an IterableDataset, but this {type(dataset).__name__} is read by index. Omit "
            "shards: any number of workers can read it."
        )
    return TorchSource(dataset)


def _of_loader(loader: Any, shards: int | None) -> TorchSource | TorchIterableSource:
    _check(loader)
    is_iterable = inherits(loader.dataset, "IterableDataset", *TORCH)
    source = _iterable(loader, shards) if is_iterable else _map(loader, shards)
    source.noun, source.own_names = "a PyTorch DataLoader", {**_OWN_NAMES, **source.own_names}
    source.implied = {**source.implied, **_collate(loader), **_rest(loader)}
    if _is_plain(loader):
        source.batched, source.ready, source.step = True, _PLAIN, _step(loader)
    return source


def _map(loader: Any, shards: int | None) -> TorchSource:
    """The source for a DataLoader whose dataset is read by index."""
    source = _by_index(loader.dataset, shards)
    source.implied, source.own_names = _order(loader, source.length)
    if loader.worker_init_fn is not None and loader.num_workers:
        init = DatasetInit(loader.worker_init_fn, source.payload, loader.num_workers)
        source.implied = {**source.implied, "worker_init": init}
    _tell_unused(loader, _UNUSED, calls_init=loader.num_workers > 0)
    return source


def _iterable(loader: Any, shards: int | None) -> TorchIterableSource:
    """The source for a DataLoader whose dataset is an `IterableDataset`."""
    count = loader.num_workers if shards is None else shards
    init = loader.worker_init_fn if count else None
    source = TorchIterableSource(loader.dataset, count or 1, worker_init_fn=init, is_alone=not count)
    source.implied = _sizes(loader.batch_size, loader.drop_last)
    _tell_unused(loader, [name for name in _UNUSED if name != "num_workers"], calls_init=count > 0)
    return source


def _check(loader: Any) -> None:
    """Raise `OptionError` for what cannot be carried over."""
    base = next(kind for kind in type(loader).__mro__ if (kind.__module__, kind.__name__) == _LOADER)
    own = [name for name in ("__iter__", "_get_iterator") if getattr(type(loader), name) is not getattr(base, name)]
    if own:
        raise OptionError(
            f"{type(loader).__name__} makes its batches in an `{own[0]}` of its own, which cannot be carried over. "
            "Pass its dataset, `stoker.Loader(loader.dataset, batch_size=…)`, or iterate it in this process, "
            "`stoker.from_iterable(loader, batched=True)`."
        )
    if device := getattr(loader, "pin_memory_device", ""):
        raise OptionError(
            f"the DataLoader has pin_memory_device={device!r}, but batches lie in shared memory of the CPU. Omit it, "
            "and move batches to the device where they are used."
        )
    if _is_plain(loader) and _is_torchs(loader.sampler, "BatchSampler"):
        raise OptionError(
            "the DataLoader has batch_size=None and a sampler that yields batches of indices, which the dataset would "
            "get as lists. Pass it as batch_sampler=, and give the dataset a `__getitems__(indices)` that returns a "
            "list of examples."
        )


def _is_plain(loader: Any) -> bool:
    """True if a DataLoader makes no batches, but passes on each element of its dataset."""
    return loader.batch_size is None and loader.batch_sampler is None


def _order(loader: Any, length: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The arguments that its samplers determine, and the DataLoader's names of these."""
    sampler, size, drop_last = loader.sampler, loader.batch_size, loader.drop_last
    if size is None and loader.batch_sampler is not None:
        if not _is_torchs(loader.batch_sampler, "BatchSampler"):
            return {"order": loader.batch_sampler}, {"order": "batch_sampler"}
        of = loader.batch_sampler
        sampler, size, drop_last = of.sampler, of.batch_size, of.drop_last
    sizes = _sizes(size, drop_last)
    if _is_torchs(sampler, "SequentialSampler") and len(sampler) == length:
        return {**sizes, "shuffle": False}, {}
    is_random = _is_torchs(sampler, "RandomSampler") and not sampler.replacement
    if is_random and len(sampler) == len(sampler.data_source) == length:
        return {**sizes, "shuffle": True}, {}
    return {**sizes, "order": sampler}, {"order": "sampler"}


def _sizes(size: int | None, drop_last: bool) -> dict[str, Any]:
    return {"batch_size": size} if size is None else {"batch_size": size, "drop_remainder": drop_last}


def _collate(loader: Any) -> dict[str, Any]:
    """The `collate_fn`, unless it does what the Loader does anyway."""
    if _is_plain(loader):
        return {}
    if not _is_default(loader.collate_fn, "default_collate"):
        return {"collate": loader.collate_fn}
    home: Any = importlib.import_module(_COLLATE)
    known = home.default_collate_fn_map
    if all(getattr(join, "__module__", None) == _COLLATE for join in known.values()):
        return {}
    return {"collate": partial(home.collate, collate_fn_map=dict(known))}  # with types that the user has added


def _step(loader: Any) -> Callable[[Any], Any] | None:
    """What a DataLoader without batches applies to each element; None if that changes no value."""
    return None if _is_default(loader.collate_fn, "default_convert") else loader.collate_fn


def _is_default(function: Any, name: str) -> bool:
    """True for PyTorch's own function of this name."""
    return (getattr(function, "__module__", None), getattr(function, "__name__", None)) == (_COLLATE, name)


def _rest(loader: Any) -> dict[str, Any]:
    """The seed and the timeout, where the DataLoader has them."""
    sampler = loader.sampler if loader.batch_sampler is None else getattr(loader.batch_sampler, "sampler", None)
    generator = loader.generator or getattr(sampler, "generator", None)
    seed = {} if generator is None else {"seed": generator.initial_seed()}
    return {**seed, "timeout": float(loader.timeout)} if loader.timeout else seed


def _is_torchs(value: Any, name: str) -> bool:
    """True for an instance of exactly this class of PyTorch's samplers, which works as is known."""
    return type(value).__module__ == _SAMPLERS and type(value).__name__ == name


def _tell_unused(loader: Any, names: Any, *, calls_init: bool) -> None:
    """Log which of these options are set, as they are not used; `calls_init`: whether `worker_init_fn` is called."""
    if loader.worker_init_fn is not None and not calls_init:
        log.warning(
            "the DataLoader's worker_init_fn is not called, as PyTorch does not call it with num_workers=0. To have it "
            "called in the Loader's workers, give the DataLoader num_workers=1 or more, or pass `worker_init=`."
        )
    found = [(name, getattr(loader, name, _UNUSED[name][0])) for name in names]
    used = [f"{name}={value!r}" for name, value in found if value not in _UNUSED[name]]
    if used:
        log.warning(
            "the DataLoader's %s is not used. It changes no batch: the Loader has workers of its own (`workers=`), "
            "which live as long as it does, makes batches ahead (`prefetch=`), and hands them over in order, in shared "
            "memory.",
            ", ".join(used),
        )
