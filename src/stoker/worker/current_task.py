"""The task at work: what the parts of the worker know of it, and what the trainer sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stoker.errors import summary
from stoker.memory.progress_page import EXAMPLE, NOTHING, PHASE, SHARD, TASK, Phase
from stoker.protocol.failures import is_exhausted, lacks_descriptors
from stoker.protocol.messages import size
from stoker.protocol.replies import REASON_BYTES
from stoker.protocol.requests import (
    DescribeRequest,
    MakeExamplesRequest,
    OpenShardRequest,
    Request,
    ShardTaskRequest,
)
from stoker.structure.forms import Misfit
from stoker.worker.tasks.digests import Digests

#: Maximum characters of the error reported for a skipped example.
_SHOWN = 200


class CurrentTask:
    """The state of the task at work. `begin` and `end` enclose each task.

    The progress page shows the task, its shard, its current example and its phase, for error messages and for the
    trainer if the worker dies or hangs.

    Args:
        words: the worker's progress page. Loops over examples write to it directly, as a call costs more than that.
        skips: examples that raise are left out.

    Attributes:
        without: examples left out because they kill workers.
        skipped: examples left out since `begin`, with the reason: they raised or were unlike the others.
        exhausted: True once this process has run out of file descriptors or memory.
        keeps: True if examples are still needed when the next one is made: see `stoker.worker.batching.keeping`.
        is_careful: True if workers died at this task. Each example is then converted before the next is made, so that
            the progress page names the example at fault.
        batch_seed: seed of the batch that is made.
        collated: result of the user's function for that batch, if it was called earlier: one item or none.
        digests: digests of the outputs, if requested.
        made_before: True if the task only writes rows that were made before it.
    """

    def __init__(self, words: memoryview, *, skips: bool) -> None:
        self.words, self._skips = words, skips
        self.exhausted = False
        self.digests = Digests()
        self._reset()

    def _reset(self) -> None:
        self.without: frozenset[int] = frozenset()
        self.skipped: list[tuple[int, str]] = []
        self._reason_bytes = 0
        self.keeps, self.is_careful = True, False
        self.batch_seed, self.collated = 0, list[Any]()
        self.digests.clear()
        self.made_before = False

    def begin(self, request: Request) -> None:
        """Begin a task."""
        self._reset()
        match request:
            case MakeExamplesRequest() | OpenShardRequest():
                self.without = frozenset(request.without)
            case ShardTaskRequest():
                self.without, self.is_careful = frozenset(request.without), request.careful
            case DescribeRequest():
                self.without = frozenset(number for _, number in request.without)
        words = self.words
        words[TASK], words[SHARD], words[EXAMPLE] = request.task, NOTHING, NOTHING
        words[PHASE] = Phase.READING  # last: the words above now describe this task

    def end(self) -> None:
        """End the task. Its shard and example can still be read."""
        self.words[PHASE] = Phase.IDLE

    # ── where it is ──────────────────────────────────────────────────────────────────────────
    @property
    def example(self) -> int | None:
        """The number of the current example, or None."""
        number = self.words[EXAMPLE]
        return None if number == NOTHING else int(number)

    @property
    def shard(self) -> int | None:
        """The shard in which the current example is counted, or None."""
        number = self.words[SHARD]
        return None if number == NOTHING else int(number)

    def at(self, example: int | None) -> None:
        """Go to an example; None where several are made at once."""
        self.words[EXAMPLE] = NOTHING if example is None else example

    def at_shard(self, shard: int | None) -> None:
        """Go to a shard, which numbers the examples; None where the source numbers them."""
        self.words[SHARD] = NOTHING if shard is None else shard

    def join(self) -> None:
        """Begin to make the batch, now that its examples are made. No single example is at work then."""
        self.at(None)
        self.words[PHASE] = Phase.JOINING

    def go_on_reading(self) -> None:
        """Go back from a batch to making examples."""
        self.words[PHASE] = Phase.READING

    @property
    def is_joining(self) -> bool:
        """True if a batch is made, and no single example is at work."""
        return self.words[PHASE] == Phase.JOINING and self.example is None

    # ── what it makes ────────────────────────────────────────────────────────────────────────
    def write_at_once(self) -> None:
        """Keep no examples: each is written before the next one is made."""
        self.keeps = False

    def begin_batch(self, seed: int, collated: Sequence[Any] = ()) -> None:
        """Begin a batch with this seed; `collated` holds the result of the user's function, if there is one."""
        self.batch_seed, self.collated = seed, list(collated)

    def skip(self, number: int, error: BaseException) -> None:
        """Leave out an example that raised or is unlike the others; raises the error if it must not be skipped."""
        if not self._skips or isinstance(error, KeyboardInterrupt) or lacks_descriptors(error):
            raise error
        self.note(error)
        reason = _reason(error)[:_SHOWN]
        self._reason_bytes += size(reason)
        self.skipped.append((number, reason if self._reason_bytes <= REASON_BYTES else ""))

    def note(self, error: BaseException) -> None:
        """Note whether an error means that this process has run out of file descriptors or memory."""
        self.exhausted = self.exhausted or is_exhausted(error)


def _reason(error: BaseException) -> str:
    """The reason for leaving out an example."""
    if isinstance(error, Misfit):
        return str(error).replace("as in the first examples", "as in the others").removesuffix(".")  # it may be one
    return summary(error)
