"""``tf.data.Dataset.from_generator`` over the user's code, all in the trainer's process.

Batches are collated in the generator: a generator of single examples with ``.batch()`` after it would pay
``from_generator``'s cost for each example and be slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders import Job, into_tf

PACKAGE = ""


@contextmanager
def feed(job: Job) -> Iterator[Any]:
    def batches() -> Iterator[Any]:
        for number in range(job.batches):
            yield job.case.read(job.source, number)

    yield into_tf(job, batches)
