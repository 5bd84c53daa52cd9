"""PyTorch ``DataLoader`` with worker processes, its batches handed to ``from_generator``.

Its own collation makes tensors in shared memory, which TensorFlow takes without a copy: several times as quick as a
collation into NumPy arrays, which PyTorch pickles through a pipe. What it cannot stack goes through the pipe as NumPy
arrays: tensors, a file descriptor each, were no quicker on f and g and half as quick on h.

``fork`` is its default on Linux up to Python 3.13 and the quickest to start. Forking beside TensorFlow's threads is
not safe in general; these workers touch no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.contenders import Job, into_tf

PACKAGE = "torch"


@contextmanager
def feed(job: Job, start_method: str = "fork") -> Iterator[Any]:
    """Make the loader and a dataset over it."""
    loader: DataLoader[Any] = DataLoader(
        job.source,  # type: ignore[arg-type]  # any object with __len__ and __getitem__ will do
        batch_size=job.case.batch_size,
        num_workers=job.workers,
        collate_fn=job.case.batching.collate_fn,
        drop_last=True,
        prefetch_factor=2,
        persistent_workers=True,
        multiprocessing_context=start_method,
    )
    yield into_tf(job, lambda: map(_arrays, loader))


def _arrays(batch: Any) -> Any:
    """A batch as it came, with arrays for tensors."""
    return batch if isinstance(batch, dict) else tuple(part.numpy() for part in batch)
