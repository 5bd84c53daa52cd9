"""What the user's PyTorch code sees in a worker: `torch.utils.data.get_worker_info()`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


class WorkerPlace:
    """The place that `get_worker_info()` describes, of one worker among several as PyTorch starts them.

    Args:
        dataset: this worker's copy of the dataset.
        index: the worker's number; None for no worker, as in a DataLoader with `num_workers=0`.
        count: number of workers.
        seed: the worker's seed. Those of all workers are consecutive.

    Attributes:
        seen: names of the attributes of `get_worker_info()` that were read.
    """

    def __init__(self, dataset: Any, index: int | None, count: int, seed: int) -> None:
        self._home: Any = importlib.import_module("torch.utils.data._utils.worker")
        self.seen: set[str] = set()
        self._info = None if index is None else self._noting(id=index, num_workers=count, seed=seed, dataset=dataset)
        self.seen.clear()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function for which `get_worker_info()` describes this place.

        Several shards are open at once in a process, so this holds only for the call.
        """
        home = self._home
        before, home._worker_info = home._worker_info, self._info
        try:
            return function(*arguments)
        finally:
            home._worker_info = before

    def _noting(self, **values: Any) -> Any:
        """A `WorkerInfo` that notes which of its attributes are read."""
        seen = self.seen

        class NotingWorkerInfo(self._home.WorkerInfo):  # type: ignore[name-defined,misc]  # PyTorch is not imported
            def __getattribute__(self, name: str) -> Any:
                seen.add(name)
                return super().__getattribute__(name)

        return NotingWorkerInfo(**values)


class DatasetInit:
    """Calls a DataLoader's `worker_init_fn` in a worker, for a dataset that is read by index.

    It refers to the dataset, and is pickled along with it. So what the function changes in `get_worker_info().dataset`
    is changed in the dataset that the worker reads.

    Args:
        function: called with the worker's number.
        dataset: the dataset.
        count: the DataLoader's `num_workers`.

    Attributes:
        is_of_source: it is called for each copy of the source that a worker makes, for epochs that overlap.
    """

    is_of_source = True

    def __init__(self, function: Callable[[int], Any], dataset: Any, count: int) -> None:
        self._function, self._dataset, self._count = function, dataset, count

    def __call__(self) -> None:
        import stoker

        index = stoker.current().worker or 0
        seed = importlib.import_module("torch").initial_seed()
        WorkerPlace(self._dataset, index, max(self._count, index + 1), seed).call(self._function, index)
