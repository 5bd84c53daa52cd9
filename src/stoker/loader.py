"""Loader: the object a user holds. It checks its options, and hands out what is built of them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from stoker.build import build
from stoker.errors import StokerError, copied
from stoker.feed.batch_iterator import BatchIterator, cannot_be_copied
from stoker.options import BATCH_SIZE, LoaderOptions
from stoker.plan.batching import Outline
from stoker.scheduler.machine import RETRIES
from stoker.stats import Stats
from stoker.structure.collation import Pad
from stoker.validation import whole

if TYPE_CHECKING:
    import tensorflow as tf


def _as_it_is(method: Any) -> Any:
    """`method`, which TensorFlow's AutoGraph does not rewrite when a function of the user's calls it."""
    method.autograph_info__ = {}
    return method


class Loader:
    """Runs a source in many processes and hands over its batches, which lie in shared memory.

    Every iteration, of the Loader or of a dataset made by `to_tf`, is the next epoch, counted from
    its first pull. Within an epoch each example comes once, in an order that depends on `source`,
    `seed`, `shuffle`, `batch_size` and the epoch alone: not on `workers`, timing or worker deaths.

    An example is a nested dict, list, tuple, namedtuple or dataclass (which becomes a dict) of arrays, numbers,
    strings and bytes; tensors of TensorFlow (ragged and sparse ones too), PyTorch and JAX, PIL images and
    SciPy's sparse matrices are taken as arrays. All examples have the same structure and dtypes. None may stand
    in a container.

    Args:
        source: any object with `__len__` and `__getitem__(index)`, index an int from 0; an array in an HDF5 or zarr
            file; or what `stoker.from_generator`, `from_iterable` or `from_arrays` return. If it has
            `__getitems__(indices)`, that is asked for runs of up to 64 examples instead. It is pickled once (with
            cloudpickle) and lives in the workers as it was then; its arrays are shared by all of them, read-only.
            `on_epoch_end()`, if it has that, is called before each epoch but the first, in all workers alike; see
            also `update`.
        batch_size: examples in a batch; None to get the examples one by one. Left out where the source makes the
            batches (`batched`).
        shuffle: True takes the examples in a new permutation of the whole source each epoch, in
            O(1) memory: a Feistel network with cycle walking (Black and Rogaway, 2002; see
            `stoker.plan.permutation`). For generators and iterables, the size of a shuffle buffer.
        seed: what the permutations and all random numbers of the workers are drawn from. `random`,
            `numpy.random` and the transform's `rng` are set anew before each example, from (seed, epoch, example); so
            are PyTorch's and TensorFlow's states where the user's code has imported these, and generators
            that its objects hold (`np.random.Generator`, `RandomState`, `random.Random`).
        transform: called with each example in the worker; gets a `numpy.random.Generator` as `rng` if
            it has a parameter of that name. Where it needs two arguments or more, an example that is a tuple of as
            many parts is taken apart, as by `tf.data.Dataset.map`: `lambda x, y: (x / 255, y)`. Returns the
            example that goes into the batch, or `stoker.SKIP`, or `stoker.Many(examples)`.
        collate: how examples become a batch: "stack" (all of one shape), "pad" or `stoker.pad(...)`, "ragged"
            (`tf.RaggedTensor`); or a dict of these by path, such as `{"ids": "pad", ("meta", 0): "ragged"}`, of which
            the longest counts, the others being stacked; or a function of a list of examples that returns a
            batch, in the worker; it gets an `rng` of the batch's own if it has a parameter of that name. Where it
            pads or is ragged, a list of numbers or strings counts as an array.
        drop_remainder: whether the last batch is left out when it is not full.
        output_signature: nested `tf.TensorSpec`s (ragged and sparse ones too) of an *example*, as for
            `tf.data.Dataset.from_generator`; None for sizes that vary. Numbers of another dtype are converted to the
            one that it tells; one that this cannot hold (300 for uint8, 1.5 for int64) is an error. Without it the
            first examples are looked at: those of the first batch, at least 8, where sizes may differ, and those that
            do are None. For a collate function it tells of a batch; without it the first two are looked at, and any
            may have other rows.
        workers: worker processes; None for one on each CPU that this process may use (affinity and
            cgroup quota); 0 to run the user's code in the pulling thread, for debugging (behind
            `to_tf()`, in one thread of the Loader's own); the source is a copy there too, functions are not.
        prefetch: batches made ahead of their pull; None for 2 to 16, by their size (64 MB in all). With 1, what was
            taken is followed by one batch in all, also behind `to_tf()`, which prefetches no more: for simulations
            and replay buffers, whose examples should be fresh.
        memory_limit: bytes that the batches in shared memory may take together; None for half of what the machine
            or the cgroup has free now.
        on_error: what is done about an example whose code raises, or kills its workers: "raise" tells which one it is,
            when its batch's turn comes; "skip" leaves it out, and so it does with one that is unlike the others: None,
            another structure, dtype or size. Batches stay full; `stats` lists what was left out, and a warning names
            it at the epoch's end. An exception of a generator itself cannot be left out.
        retries: how often work is done again after a worker died at it. Then the example at fault is searched.
        timeout: seconds without progress on an example (a run of them, where `__getitems__` is asked) after which a
            worker's Python stack is logged, the worker killed and its work done again, as after a death; None to warn
            once after 60 s.
        verify: the share of the work that is done twice, by two workers, such as 0.01: code that makes something else
            the second time is an error that names the example.
        seed_globals: False to leave all random states but the `rng` alone: they differ from run to run then.
        shard_index: which of several trainers this one is, from 0.
        shard_count: how many trainers read this source. `batch_size` is that of all of them together; each gets its
            rows of every batch, so that a step sees the same examples whatever their number, which divides it.
            All take as many steps. A last batch that is not full is dealt out as evenly as can be.
        pad_remainder: fill the last batch up, so that all have as many rows: its examples are spread over it, and each
            stands again, with `sample_weight` 0, up to the next one. They themselves get 1, or keep theirs (numbers,
            arrays or nested ones). Examples must be (x, y) or (x, y, weight). As Keras divides by all rows, `to_tf()`
            scales the weights in that batch: the mean over its rows is the mean over the examples of all trainers.
            "sum" leaves them as they are, for losses that are sums. Given to `fit` or `evaluate` itself, and not to
            several replicas, the dataset leaves the fillers out: all numbers are as without `pad_remainder`.
        batched: whether each element of the source is a batch already, which passes as it is, behind the transform;
            `batch_size` is left out then. It is known of a `keras.utils.PyDataset` (once `Sequence`), whose `len()`
            counts batches. Shuffling takes the batches in another order, and a state counts them.
        share: False lets each worker write to the arrays of source and transform, such as a buffer that the source
            fills again for each example: it gets pages of its own where it does. What it wrote stays there, for later
            examples of the same worker alone: `x *= 2` on an example of the source then gives other data each epoch.
        worker_init: a function without parameters, called once in each worker before the source is loaded: for what
            the script has set up and a fresh interpreter has not (logging, `np.seterr`, warnings filters). Random
            states are seeded for it from `seed`, alike in all workers; `stoker.current().worker` tells which one it is.
            With `workers=0` it is called in each thread that runs the code: that of a loop, and that of `to_tf()`.
        worker_env: environment variables of the workers, beside the trainer's; None removes one. Workers see no GPU
            (CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu" and the like) unless it names one of these variables:
            `{"CUDA_VISIBLE_DEVICES": "0"}`. It does nothing with `workers=0`.

    Raises:
        OptionError: an argument without meaning.
        SourceError: a source without length, examples or `__getitem__`.
        ProgramError: a source or transform that cannot be pickled; tells which part of it.

    Iterating raises `WorkerError` when the user's code raises (with its traceback), `SpecError` when an
    example does not fit the others, `WorkerDied` when workers die again and again at an example, and
    `SourceError` when the source is not what it was. The Loader can be iterated again after each.

    Example:
        >>> with Loader([float(i) for i in range(5)], batch_size=2, workers=0) as loader:
        ...     [batch.tolist() for batch in loader]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int | None = BATCH_SIZE,
        shuffle: bool | int = False,
        seed: int = 0,
        transform: Callable[..., Any] | None = None,
        collate: str | Pad | Mapping[Any, str | Pad] | Callable[[list[Any]], Any] = "stack",
        drop_remainder: bool = False,
        output_signature: Any = None,
        workers: int | None = None,
        prefetch: int | None = None,
        memory_limit: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        retries: int = RETRIES,
        timeout: float | None = None,
        verify: float = 0.0,
        seed_globals: bool = True,
        shard_index: int = 0,
        shard_count: int = 1,
        pad_remainder: bool | Literal["sum"] = False,
        batched: bool = False,
        share: bool = True,
        worker_init: Callable[[], Any] | None = None,
        worker_env: Mapping[str, str | None] | None = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name != "self"}
        self._producer = build(LoaderOptions(**arguments))
        self._let_go = weakref.finalize(self, self._producer.request_stop)
        self._let_go.atexit = False  # that of `interpreter_exit` does more: it waits

    def __len__(self) -> int:
        """Batches in an epoch; of examples one by one, examples. Raises TypeError when that is not known."""
        cardinality = self._outline.cardinality
        if cardinality is None or cardinality == math.inf:
            raise TypeError(
                "this Loader has no len(): " + ("it never ends" if cardinality else "nobody knows its length")
            )
        return int(cardinality)

    def __iter__(self) -> BatchIterator:
        """Iterate over the next epoch: the examples' structure, with NumPy arrays of shape (rows, …).

        The arrays are read-only (write to a copy: `array.copy()`) and lie in shared memory, which is used again once
        nothing refers to them or to views of them; so they may be kept, as many as one likes (beyond 16 batches they
        are copies).
        Strings come as object arrays of bytes, ragged values as object arrays of arrays, sparse ones as named tuples
        (indices, values, dense_shape).
        """
        return BatchIterator(self._producer, self)

    @property
    def element_spec(self) -> Any:
        """The `tf.TensorSpec` (ragged, sparse) of each leaf, nested as `to_tf().element_spec`. Needs TensorFlow."""
        return self.to_tf().element_spec

    @_as_it_is
    def to_tf(self, serialized: bool = False) -> tf.data.Dataset:
        """A `tf.data.Dataset` of the batches, without copying them; each iteration of it is the next epoch.

        It has a static batch dimension when all batches are full, a known cardinality where that is known, and
        prefetches. Lists in the examples become tuples, as everywhere in tf.data.

        Args:
            serialized: each component is a scalar string instead, which holds a `TensorProto` as
                `tf.io.serialize_tensor` writes it; `tf.io.parse_tensor` restores it. Ragged and sparse leaves become
                dicts of their components.

        Raises:
            ImportError: TensorFlow is missing; tells the `pip install` line.

        Example:
            >>> with Loader([(float(i), i) for i in range(4)], batch_size=2, workers=0) as loader:
            ...     [(x.numpy().tolist(), y.numpy().tolist()) for x, y in loader.to_tf()]
            [([0.0, 1.0], [0, 1]), ([2.0, 3.0], [2, 3])]
        """
        from stoker.feed.tensorflow import dataset

        try:
            form = self._producer.form(apart=True)
        except StokerError as error:
            self._producer.last_error = copied(error)
            raise
        outline = self._outline
        return dataset(self._producer, self, form.serialized() if serialized else form, outline, serialized=serialized)

    @_as_it_is
    def to_tf_shard(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """The part of `to_tf()` that one of several trainers reads, in batches for one replica each.

        For `strategy.distribute_datasets_from_function(loader.to_tf_shard)`; `batch_size` is the global one. Each
        process makes its own Loader with the same arguments, and without `shard_index`.

        Raises:
            OptionError: `batch_size` cannot be divided by the number of replicas; see also `shard_count`.
        """
        from stoker.feed.tensorflow import shard

        return shard(self._producer, self, context)

    @property
    def _outline(self) -> Outline:
        return self._producer.outline()

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where training stands: a small dict that JSON can hold, for `load_state_dict`, here or in another process.

        What counts is what was taken of the iteration that began last, not what was prefetched. Over NumPy, and
        in an eager loop over `to_tf()` itself, that is known. Where TensorFlow pulls ahead, in `fit()` or behind a
        `map`, it is not: tell it, or use `stoker.keras.ResumableData`.

        Args:
            consumed: batches taken since that iteration began (examples, for `batch_size=None`).

        Raises:
            StateError: nobody knows how many were taken.
            OptionError: `consumed` is more than were handed over.

        Example:
            >>> with Loader(range(10), batch_size=2, workers=0) as loader:
            ...     batches = iter(loader)
            ...     _ = next(batches), next(batches), next(batches)
            ...     state = loader.state_dict()
            >>> state["epoch"], state["batches"]
            (0, 3)
            >>> with Loader(range(10), batch_size=2, workers=0) as again:
            ...     again.load_state_dict(state)
            ...     [batch.tolist() for batch in again]
            [[6, 7], [8, 9]]
        """
        consumed = None if consumed is None else whole("consumed", consumed, least=None)
        return self._producer.state(consumed)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on where a state was taken: the next iteration that begins is the rest of that epoch.

        At once for sources with an index; shards of a generator are read again up to where they had come, unless
        their iterator has `state_dict()` and `load_state_dict()` that JSON can hold; the items of an iterable are
        skipped. Iterations under way are not disturbed. `workers`, `prefetch` and the like may differ.

        Args:
            state: what `state_dict` returned.
            strict: False to begin the state's epoch afresh where it is of a Loader with other batches.

        Raises:
            StateError: the state is damaged, or of a Loader with other batches: tells what differs.
        """
        self._producer.load_state(state, strict=strict)

    def trackable(self) -> Any:
        """The place in the data, for `tf.train.Checkpoint(model=model, data=loader.trackable())`.

        Saving takes `state_dict()`, restoring calls `load_state_dict`. Where nobody knows what was taken, set its
        attribute `consumed` before saving: batches since the iteration began. Needs TensorFlow.
        """
        from stoker.feed.trackable import trackable

        return trackable(self.state_dict, self.load_state_dict)

    def update(self, **attributes: Any) -> None:
        """Give the source new values of attributes, in all workers, from the next epoch that begins.

        Workers have the source as it was when the Loader was made: `dataset.level = 2` is not seen by them,
        `loader.update(level=2)` is. `on_epoch_end`, where the source has it, is called after it. An iteration
        under way, and the object that was given to the Loader, keep what they have. `state_dict()` does not
        hold it: call it again when training goes on.

        Raises:
            OptionError: the source has no such attribute, or is no object with attributes; or the values are large.
            ProgramError: a value cannot be pickled.

        Example:
            >>> class Curriculum:
            ...     level = 1
            ...     def __len__(self):
            ...         return 2
            ...     def __getitem__(self, index):
            ...         return index * self.level
            >>> with Loader(Curriculum(), batch_size=2, workers=0) as loader:
            ...     easy = [batch.tolist() for batch in loader]
            ...     loader.update(level=5)
            ...     easy, [batch.tolist() for batch in loader]
            ([[0, 1]], [[0, 5]])
        """
        self._producer.update(attributes)

    def stats(self) -> Stats:
        """Deaths of workers, and examples that were left out, since the Loader was made.

        Example:
            >>> with Loader([1, 0, 4], transform=lambda n: 12 // n, on_error="skip", workers=0) as loader:
            ...     print([batch.tolist() for batch in loader], loader.stats().skips)
            [[12, 3]] 1
        """
        return self._producer.stats()

    @property
    def last_error(self) -> StokerError | None:
        """The last error that ended an iteration, or None; its `__cause__` is the user's own exception.

        For `fit` and all else that TensorFlow runs, out of which comes an error of TensorFlow's with the text alone.

        Example:
            >>> with Loader([2, 1, 0], transform=lambda n: 1 // n, workers=0) as loader:
            ...     try:
            ...         list(loader)
            ...     except RuntimeError:
            ...         print(type(loader.last_error.__cause__).__name__, loader.last_error.example)
            ZeroDivisionError 2
        """
        return self._producer.last_error

    def close(self) -> None:
        """End the workers, within 2 seconds.

        Batches that were handed over stay valid; iterating raises `ClosedError`.
        """
        self._let_go.detach()
        self._producer.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise cannot_be_copied("a Loader")

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except KeyboardInterrupt:
            self.close()
            if not isinstance(error, KeyboardInterrupt):  # the first one's traceback is enough
                raise
