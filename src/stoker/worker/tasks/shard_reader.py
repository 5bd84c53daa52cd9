"""One shard, read from start to end, and its progress."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optree

from stoker.memory.progress_page import EXAMPLE, PHASE, Phase
from stoker.plan.position import ShardProgress
from stoker.protocol.messages import size
from stoker.protocol.replies import STATE_BYTES
from stoker.sources.markers import SKIP, Many
from stoker.worker.failed import SourceChanged
from stoker.worker.tasks.digests import digest

log = logging.getLogger("stoker")

#: Marks the end of a shard, or of a `Many`.
END = object()
_NO_MORE = END, 0
_PULLING, _READING = int(Phase.PULLING), int(Phase.READING)  # enum lookups are slow
#: Maximum examples and bytes of a `Many` that are made before other user code runs. The rest, which may be endless, is
#: made on demand.
_AHEAD, _AHEAD_BYTES = 1024, 16 << 20


@dataclass(frozen=True)
class _Raised:
    """Marks an output of a `Many` that raised."""

    error: BaseException


def _weight(output: Any) -> int:
    """The approximate size of an output in bytes."""
    leaves = optree.tree_leaves(output)
    return sum(len(leaf) if isinstance(leaf, str | bytes) else getattr(leaf, "nbytes", 64) for leaf in leaves)


class ShardReader:
    """One open shard: a sequence of raw examples and their transformed outputs.

    Args:
        raws: the shard's examples before the transform, each with its seed.
        transform: makes the output from a raw example and its seed.
        progress: where another worker left the shard. Examples up to there are read and dropped.
        own_state: returns the iterator's own state; None if it has none.
        name: for messages.
        words: the worker's progress page, if this reader records the current example; else the maker of `raws` does so.
        numbers: the examples' numbers, in the order of `raws`; None if they are counted from 0.
        without: numbers of examples left out because they kill workers.
        keep: applied to an output of a `Many` before the next one is made.
        keep_ahead: applied to an output of a `Many` that waits while other user code runs.
        skip: called with the number of an example to leave out because it raised, and the error.

    Attributes:
        came: numbers of the examples whose outputs the last call of `take` delivered.
    """

    def __init__(
        self,
        raws: Generator[tuple[Any, int], None, None],
        transform: Callable[[Any, int], Any] | None,
        progress: ShardProgress,
        *,
        own_state: Callable[[], str] | None = None,
        name: str,
        words: memoryview | None = None,
        numbers: Sequence[int] | None = None,
        without: frozenset[int] = frozenset(),
        keep: Callable[[Any], Any],
        keep_ahead: Callable[[Any], Any],
        skip: Callable[[int, BaseException], None],
    ) -> None:
        self._keep, self._keep_ahead = keep, keep_ahead
        self._ahead: deque[Any] = deque()
        self._words, self._numbers, self._without, self._skip = words, numbers, without, skip
        self.came: list[int] = []
        self._raws, self._transform, self._own_state, self._name = raws, transform, own_state, name
        self._raw, self._within, self._digest = progress.state_raw, 0, 0
        self._state, self._state_raw = progress.state, progress.state_raw
        self._many: Iterator[Any] | None = None
        self._last: Any = None
        self._has_many = self._is_putting = self.ended = False
        self.left = progress
        self._skip_to(progress)

    @property
    def example(self) -> int:
        """The number of the current raw example."""
        return self._number(self._raw - self._is_putting)

    def begin_step(self, without: frozenset[int]) -> None:
        """Begin a step. From now on, leave out the examples in `without`."""
        self._without = without

    def take(self, count: int, last: int, put: Callable[[Any], None]) -> int:
        """Pass the next `count` outputs, or fewer at the end, to `put`, each before the next is made.

        `last` is the number of outputs that the step still needs. Returns the number of outputs passed.
        """
        came = self.came
        came.clear()
        self._is_putting = False  # the last `put` may have raised
        while len(came) < count:
            output = self._next(len(came) >= last - 1) if self._many is None else self._next_of_many()
            if output is END:
                if self._many is None:
                    self.ended = True
                    break
                self._many, self._within = None, 0
                continue
            if self._many is not None:
                self._within += 1
            elif type(output) is Many:
                self._many, self._has_many = iter(output.examples), True
                continue
            elif output is SKIP:
                continue
            came.append(self._raw - 1 if self._numbers is None else self._number(self._raw - 1))
            self._is_putting = True
            put(output)
            self._is_putting = False
        self._make_ahead()
        return len(came)

    def progress(self) -> ShardProgress:
        """Update and return the shard's progress, after a step."""
        if self._transform is None and self._raw:
            self._digest = digest(self._last)
        if self._own_state is not None and self._many is None and not self.ended:
            state = self._own_state()
            if size(state) <= STATE_BYTES:  # else the shard is read again
                self._state, self._state_raw = state, self._raw
        self.left = ShardProgress(self._raw, self._within, self._digest, self._state, self._state_raw)
        return self.left

    def close(self) -> None:
        """Release the user's iterator."""
        self._many = None
        self._ahead.clear()
        raws, self._raws = self._raws, _nothing()
        try:
            raws.close()
        except (Exception, SystemExit, GeneratorExit):  # a `finally` that raises: this shard is no longer needed
            log.warning("closing %s raised an exception", self._name, exc_info=True)

    def _next(self, may_be_last: bool) -> Any:
        """The output of the next raw example. Its digest is taken if the step may end with it."""
        raw, seed = self._pulled()
        if raw is END:
            return END
        self._last = raw
        is_left_out = bool(self._without) and self._number(self._raw) in self._without
        if self._transform is None:
            self._raw += 1
            return SKIP if is_left_out else raw
        # 0 if it is not taken: a step may still end with this example, if it is the first that gives a `Many`
        self._digest = digest(raw) if may_be_last or self._has_many else 0
        output: Any = SKIP
        if not is_left_out:
            try:
                output = self._transform(raw, seed)
            except BaseException as error:
                self._skip(self._number(self._raw), error)
        self._raw += 1
        return output

    def _next_of_many(self) -> Any:
        assert self._many is not None
        try:
            if self._ahead:
                output = self._ahead.popleft()
                if type(output) is _Raised:
                    raise output.error
                return output
            return self._keep(next(self._many, END))
        except BaseException as error:
            self._skip(self._number(self._raw - 1), error)
            return END

    def _make_ahead(self) -> None:
        """Make the rest of a `Many` ahead of time, as its generator may read buffers that the transform reuses."""
        room = _AHEAD_BYTES - sum(map(_weight, self._ahead))
        while self._many is not None and len(self._ahead) < _AHEAD and room > 0:
            try:
                output = self._keep_ahead(next(self._many, END))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # raised when its turn comes
                output, self._many = _Raised(error), iter(())
            if output is END:
                return
            self._ahead.append(output)
            room -= _weight(output)

    def _pulled(self) -> tuple[Any, int]:
        """The next raw example and its seed."""
        if self._words is None:
            return next(self._raws, _NO_MORE)
        words = self._words
        words[EXAMPLE], words[PHASE] = self._raw, _PULLING
        pulled = next(self._raws, _NO_MORE)
        words[PHASE] = _READING
        return pulled

    def _skip_to(self, progress: ShardProgress) -> None:
        for _ in range(progress.raw - (progress.within > 0) - self._raw):
            self._last, _ = self._pulled()
            if self._last is END:
                raise SourceChanged(self._changed(f"it ended after {self._raw} examples, short of {progress.raw}"))
            self._raw += 1
        if progress.within and self._number(self._raw) in self._without:
            self._next(True)  # the rest of its outputs is left out
            self._digest = progress.digest
            return
        if progress.within:
            came = self.take(progress.within, 1, lambda output: None)
            if came < progress.within or self._raw != progress.raw:
                raise SourceChanged(self._changed(f"its example {self._raw} gave fewer outputs"))
        if self._last is not None and progress.digest and progress.raw > progress.state_raw:
            now = self._digest if progress.within else digest(self._last)
            if now != progress.digest:
                raise SourceChanged(self._changed(f"its example {self._raw - 1} has changed"))
        self._digest = progress.digest

    def _number(self, position: int) -> int:
        """The number of the example at a position of the shard."""
        if self._numbers is None:
            return position
        return int(self._numbers[min(position, len(self._numbers) - 1)])

    def _changed(self, what: str) -> str:
        return (
            f"{self._name} was read again because its worker died, and it has changed: {what}. Examples would be lost "
            "or repeated. Make it the same each time: sort file lists, draw from `shard.rng`."
        )


def _nothing() -> Generator[tuple[Any, int], None, None]:
    yield from ()
