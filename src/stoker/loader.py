"""`Loader`, the public entry point: validates its options and delegates to the producer built from them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from stoker.build import build
from stoker.errors import StokerError, cannot_be_copied, copied
from stoker.feed.batch_iterator import BatchIterator
from stoker.insight.report import Report
from stoker.options import BATCH_SIZE, LoaderOptions
from stoker.plan.batching import Outline
from stoker.pool import Pool
from stoker.scheduler.machine import RETRIES
from stoker.stats import Stats
from stoker.structure.collation import Pad
from stoker.validation import whole

if TYPE_CHECKING:
    import tensorflow as tf


def _as_it_is(method: Any) -> Any:
    """Marks `method` so that AutoGraph does not rewrite it when a user's function calls it."""
    method.autograph_info__ = {}
    return method


class Loader:
    """Runs a source in worker processes and hands over its batches in shared memory.

    Every iteration, of the Loader or of a dataset made by `to_tf`, is the next epoch, counted from
    its first pull. Within an epoch each example comes once, or as often as `order` says. The sequence depends only on
    `source`, `seed`, `shuffle`, `order`, `batch_size` and the epoch, not on `workers`, timing or worker deaths.

    An example is a nested dict, list, tuple, namedtuple or dataclass (which becomes a dict) of arrays, numbers,
    strings and bytes. Tensors of TensorFlow (ragged and sparse ones too), PyTorch and JAX, PIL images and
    SciPy sparse matrices are accepted as arrays. All examples have the same structure and dtypes. A container may
    hold None.

    Args:
        source: any object with `__len__` and `__getitem__(index)`, where index is an int from 0; an array in an HDF5
            or zarr file; a dataset of Keras, PyTorch, Hugging Face, Grain, TensorFlow Datasets or tf.data, or a
            PyTorch DataLoader (see docs/moving.md);
            or the result of `stoker.from_generator`, `from_iterable` or `from_arrays`. If the source has
            `__getitems__(indices)`, Stoker calls that for runs of up to 64 examples instead, and sets random states
            once for each call. The source is pickled
            once (with cloudpickle); workers keep it as it was then, and share its arrays, read-only. If it has
            `on_epoch_end()`, that is called before each epoch except the first, with the same effect in all
            workers; see also `update`.
        batch_size: examples per batch; None to get the examples one by one. Leave it out if the source makes the
            batches (`batched`).
        shuffle: True takes the examples in a new permutation of the whole source each epoch, in
            O(1) memory: a Feistel network with cycle walking (Black and Rogaway, 2002; see
            `stoker.plan.permutation`). For generators and iterables, the size of a shuffle buffer.
        order: which examples each epoch takes, in which sequence, for a source with an index. An array or sequence of
            indices, with repetitions if you like, or a mask (`shuffle=True` shuffles it anew in each epoch). A function
            `(epoch, rng)` that returns one; `rng`, a `numpy.random.Generator`, depends on `seed` and the epoch.
            `stoker.weighted`, `stoker.balanced`, `stoker.bucketed`. A PyTorch `Sampler` or batch sampler. Or batches:
            sequences of indices, or a function that returns them. These are delivered as they are; leave out
            `batch_size`, or give the most rows that any of them has. Functions and samplers are called in the trainer,
            once for each epoch (for epoch 0 when the Loader is created), and epochs may differ in length.
        seed: the seed of the permutations and of all random numbers in the workers. `random`,
            `numpy.random` and the transform's `rng` are reseeded before each example from (seed, epoch, example). So
            are the states of PyTorch and TensorFlow, if the user's code has imported them, and the generators
            that its objects hold (`np.random.Generator`, `RandomState`, `random.Random`).
        transform: called with each example in the worker. It gets a `numpy.random.Generator` as `rng` if
            it has a parameter of that name. If it needs two or more arguments, an example that is a tuple of that
            many parts is unpacked, as by `tf.data.Dataset.map`: `lambda x, y: (x / 255, y)`. It returns the
            example that goes into the batch, `stoker.SKIP`, or `stoker.Many(examples)`.
        collate: how examples become a batch. "stack" (all of one shape), "pad" or `stoker.pad(...)`, or "ragged"
            (`tf.RaggedTensor`). A dict of these by path, such as `{"ids": "pad", ("meta", 0): "ragged"}`: the longest
            matching path wins, and all other leaves are stacked. Or a function that takes a list of examples and
            returns a batch, called in the worker; it gets an `rng` of the batch's own if it has a parameter of that
            name. Where leaves are padded or ragged, a list of numbers or strings counts as an array.
        drop_remainder: True to leave out the last batch if it is not full.
        output_signature: nested `tf.TensorSpec`s (ragged and sparse ones too) of an *example*, as for
            `tf.data.Dataset.from_generator`; None for sizes that vary. Numbers of another dtype are converted to the
            dtype given here; a number that this dtype cannot hold (300 for uint8, 1.5 for int64) is an error. Without
            a signature, the first examples are inspected: where sizes may differ, those of the first batch, at least
            8, and sizes that do differ become None. For a collate function, the signature describes a batch; without
            it, the first two batches are inspected, and any batch may have another number of rows.
        workers: number of worker processes; None for one on each CPU that this process may use (affinity and
            cgroup quota). "auto" begins with that number and changes it while batches are read: more while the
            trainer waits and more help, fewer as long as it does not wait; at most 4 per CPU (at least 8), and none
            are added when less than 1 GiB of memory is left. `stats` lists the changes, and each is logged. 0 runs
            the user's code in the pulling thread, for debugging (behind `to_tf()`, in a single thread of the Loader's
            own). The source is a copy there too; functions are not.
        prefetch: batches made ahead of their pull; None for 2 to 16, depending on their size (64 MB in all). With 1,
            only one batch in all is made beyond those taken, also behind `to_tf()`, which then prefetches no further.
            Use it for simulations and replay buffers, whose examples should be fresh.
        ahead: True lets workers go on with the first batches of the next epoch, at most `prefetch` of them, once all
            batches of an epoch are begun. They are ready at the turn of an epoch, or when validation ends. After the
            last epoch they are made in vain, and your code runs for their examples. Pass False if that does harm, or
            if your script changes between epochs what workers read, such as a file. Nothing is made ahead if the
            source has `on_epoch_end`, after an `update`, if `order` is a function or a sampler, of iterables, and with
            `prefetch=1` or `workers=0`.
        memory_limit: bytes that the batches in shared memory may take together; None for half of what the machine
            or the cgroup has free now.
        on_error: what to do about an example whose code raises or kills its workers. "raise" raises an error that
            names the example, when its batch is due. "skip" leaves the example out; it also leaves out examples that
            do not match the others: None, or another structure, dtype or size. Batches stay full; `stats` lists what
            was left out, and a warning names it at the end of the epoch. An exception of a generator itself cannot
            be skipped.
        retries: how often work is repeated after a worker died at it. After that, Stoker searches for the example at
            fault.
        timeout: seconds without progress on an example (or on a run of them, with `__getitems__`). After that, the
            worker's Python stack is logged, the worker is killed and its work is repeated, as after a death. None
            warns once after 60 s.
        verify: the share of the work that is done twice, by two workers, such as 0.01. If the second result differs,
            an error names the example.
        seed_globals: False to leave all random states except `rng` alone; they then differ from run to run.
        shard_index: the index of this trainer among several, from 0.
        shard_count: how many trainers read this source. `batch_size` is the global one, of all trainers together, and
            a multiple of `shard_count`. Each trainer gets its rows of every batch, so a step sees the same examples
            whatever the number of trainers. All take the same number of steps. A last batch that is not full is
            divided as evenly as possible.
        pad_remainder: True to fill up the last batch, so that all batches have the same number of rows. Its examples
            are spread over it, and each is repeated, with `sample_weight` 0, up to the next one. The examples
            themselves get weight 1 or keep their own (numbers, arrays or nested ones). Examples must be (x, y) or
            (x, y, weight). As Keras divides by all rows, `to_tf()` scales the weights in that batch: the mean over its
            rows is then the mean over the examples of all trainers. "sum" leaves the weights as they are, for losses
            that are sums. If the dataset is given to `fit` or `evaluate` itself, with a single replica, it leaves the
            fillers out: all numbers are as without `pad_remainder`.
        batched: True if each element of the source is already a batch, which is passed on as it is after the
            transform; then leave `batch_size` out. A `keras.utils.PyDataset` (formerly `Sequence`), whose `len()`
            counts batches, is recognised. Shuffling changes the order of the batches, and a state counts batches.
        share: False lets each worker write to the arrays of source and transform, such as a buffer that the source
            refills for each example. A worker gets its own copy of the pages that it writes to. What it wrote stays
            there, but only for later examples of the same worker: `x *= 2` on an example of the source then gives
            different data each epoch.
        worker_init: a function without parameters, called once in each worker before the source is loaded. Use it for
            what the script has set up and a fresh interpreter lacks (logging, `np.seterr`, warnings filters). Random
            states are seeded for it from `seed`, identically in all workers; `stoker.current().worker` is the worker's
            number. With `workers=0` it is called in each thread that runs the user's code: that of a loop, and that
            of `to_tf()`.
        worker_env: environment variables of the workers, in addition to the trainer's; None removes one. Workers see
            no GPU (CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu" and the like) unless it names one of these variables:
            `{"CUDA_VISIBLE_DEVICES": "0"}`. It has no effect with `workers=0`.
        start: how workers are started. "warm" forks them from one fresh interpreter that has imported the modules of
            your source and transform; each worker unpickles both itself. If importing these modules starts a thread or
            opens a file or socket, and with "fresh", each worker is an interpreter of its own, which imports them anew.
        lazy: False to start the workers now, and to let them make the first batches of epoch 0 meanwhile, at most
            `prefetch` of them. Then the first pull need not wait for them. Errors of your code wait until then, or for
            `to_tf()`. Pass True to start nothing before the first pull: if the Loader may never be read, if environment
            variables or files that workers read are set after it, if the script forks itself before it reads, or if
            `load_state_dict`, `update`, `to_tf(serialized=True)` or `to_tf_shard` follows and examples of epoch 0 must
            not be made in vain. The first examples decide the form of the batches, so an `update` that changes shapes
            or dtypes needs `lazy=True` too. No example is made early of an iterable, which the trainer pulls, or with
            `prefetch=1`; only workers are started there. Nothing is started with `workers=0`, while a module that
            creates the Loader is being imported, in workers and other child processes of multiprocessing, and while
            four Loaders that were started wait for their first pull.
        pool: a `stoker.Pool`, whose workers make the examples of several Loaders. It determines `workers`, `timeout`,
            `worker_init`, `worker_env` and `start`.

    Raises:
        OptionError: an argument is invalid.
        SourceError: the source has no length, no examples or no `__getitem__`.
        ProgramError: the source or transform cannot be pickled; the message names the part.

    Iterating raises `WorkerError` when the user's code raises (with its traceback), `SpecError` when an
    example does not match the others, `WorkerDied` when workers die repeatedly at an example, and
    `SourceError` when the source has changed. The Loader can be iterated again after each of these.

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
        order: Any = None,
        seed: int = 0,
        transform: Callable[..., Any] | None = None,
        collate: str | Pad | Mapping[Any, str | Pad] | Callable[[list[Any]], Any] = "stack",
        drop_remainder: bool = False,
        output_signature: Any = None,
        workers: int | Literal["auto"] | None = None,
        prefetch: int | None = None,
        ahead: bool = True,
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
        start: Literal["warm", "fresh"] = "warm",
        lazy: bool = False,
        pool: Pool | None = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name != "self"}
        options = LoaderOptions(**arguments)
        self._producer = build(options)
        self._let_go = weakref.finalize(self, self._producer.request_stop)
        self._let_go.atexit = False  # the exit hook of `interpreter_exit` does more: it waits
        if not options.lazy:
            self._producer.begin_early()

    def __len__(self) -> int:
        """Batches per epoch (examples, for `batch_size=None`). Raises TypeError if that is unknown or infinite.

        If an `order` function decides it for each epoch: those of the epoch that is being read or, between epochs, of
        the next one, for which it is called then.
        """
        cardinality = self._producer.elements()
        if cardinality is None or cardinality == math.inf:
            raise TypeError(
                "this Loader has no len(): " + ("it never ends" if cardinality else "its length is unknown")
            )
        return int(cardinality)

    def __iter__(self) -> BatchIterator:
        """Iterate over the next epoch: the structure of the examples, with NumPy arrays of shape (rows, …).

        The arrays are read-only (write to a copy: `array.copy()`). They lie in shared memory, which is reused once
        nothing refers to them or to views of them. Any number of batches may be kept (beyond 16 they are copies).
        Strings come as object arrays of bytes, ragged values as object arrays of arrays, sparse values as named
        tuples (indices, values, dense_shape).
        """
        return BatchIterator(self._producer, self)

    @property
    def element_spec(self) -> Any:
        """The `tf.TensorSpec` (ragged, sparse) of each leaf, nested as `to_tf().element_spec`. Needs TensorFlow."""
        return self.to_tf().element_spec

    @_as_it_is
    def to_tf(self, serialized: bool = False) -> tf.data.Dataset:
        """A `tf.data.Dataset` of the batches, without copying them. Each iteration of it is the next epoch.

        The dataset prefetches. Its batch dimension is static when all batches are full, and its cardinality is known
        when the number of batches is. Lists in the examples become tuples, as everywhere in tf.data.

        Args:
            serialized: True to make each component a scalar string that holds a `TensorProto`, as written by
                `tf.io.serialize_tensor`; `tf.io.parse_tensor` restores it. Ragged and sparse leaves become
                dicts of their components.

        Raises:
            ImportError: TensorFlow is missing; the message gives the `pip install` line.

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

    def to_keras(self, class_weight: Mapping[int, float] | None = None) -> Any:
        """The batches for `fit`, `evaluate` and `predict` of Keras, on its backend: TensorFlow, JAX or PyTorch.

        On TensorFlow this is `to_tf()`. On JAX and PyTorch, TensorFlow is not needed; the arrays of a batch are not
        copied on the CPU. Each epoch of `fit` is the next epoch of the Loader. Ragged values are padded with zeros
        there; strings exist only on TensorFlow. The result's `repeat()` never ends, for `steps_per_epoch`.

        Args:
            class_weight: weights by class for examples (x, y), where y is a class number or one-hot. Pass it here
                instead of to `fit`, which would ignore it. Classes that are not named weigh 1.

        Raises:
            ImportError: Keras is missing; the message gives the `pip install` line.
            OptionError: Keras runs on another backend, the backend has no such values as a leaf holds, `class_weight`
                is invalid or the examples have weights of their own, or there is no `batch_size`.

        Example:
            >>> import keras
            >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            >>> model.compile("sgd", "mse")
            >>> with Loader([([float(i)], 2.0 * i) for i in range(4)], batch_size=2, workers=0) as loader:
            ...     history = model.fit(loader.to_keras(), epochs=3, verbose=0)
            >>> len(history.history["loss"])
            3
        """
        from stoker.feed.keras_data import keras_data

        try:
            return keras_data(self._producer, self, class_weight)
        except StokerError as error:
            self._producer.last_error = copied(error)
            raise

    @_as_it_is
    def to_tf_shard(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """The part of `to_tf()` that one of several trainers reads, in batches for one replica each.

        Pass it to `strategy.distribute_datasets_from_function(loader.to_tf_shard)`; `batch_size` is the global one.
        Each process makes its own Loader with the same arguments and without `shard_index`.

        Raises:
            OptionError: `batch_size` cannot be divided by the number of replicas; see also `shard_count`.
        """
        from stoker.feed.tensorflow import shard

        return shard(self._producer, self, context)

    @property
    def _outline(self) -> Outline:
        return self._producer.outline()

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """The position of training: a small JSON-compatible dict for `load_state_dict`, here or in another process.

        The state counts the batches taken from the iteration that began last, not those prefetched. Their number is
        known when iterating over NumPy batches, and in an eager loop over `to_tf()` itself. It is unknown where
        TensorFlow pulls ahead, in `fit()` or behind a `map`: pass `consumed`, or use `stoker.keras.ResumableData`.

        Args:
            consumed: batches taken since that iteration began (examples, for `batch_size=None`).

        Raises:
            StateError: the number of batches taken is unknown.
            OptionError: `consumed` exceeds the number handed over.

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
        """Resume where a state was taken: the next iteration that begins is the rest of that epoch.

        Resuming is immediate for sources with an index. Shards of a generator are read again up to the saved
        position, unless their iterator has `state_dict()` and `load_state_dict()` with a JSON-compatible state. The
        items of an iterable are skipped. Iterations in progress are not affected. `workers`, `prefetch` and the like
        may differ.

        Args:
            state: the result of `state_dict`.
            strict: False to restart the state's epoch if the state is from a Loader with other batches.

        Raises:
            StateError: the state is damaged, or from a Loader with other batches; the message says what differs.
        """
        self._producer.load_state(state, strict=strict)

    def trackable(self) -> Any:
        """The position in the data, for `tf.train.Checkpoint(model=model, data=loader.trackable())`.

        Saving calls `state_dict()`, restoring calls `load_state_dict`. Where the number of batches taken is unknown,
        set the attribute `consumed` before saving: batches since the iteration began. Needs TensorFlow.
        """
        from stoker.feed.trackable import trackable

        return trackable(self.state_dict, self.load_state_dict)

    def update(self, **attributes: Any) -> None:
        """Set attributes of the source in all workers, from the next epoch that begins.

        Workers have the source as it was when the Loader was created: they do not see `dataset.level = 2`, but they do
        see `loader.update(level=2)`. `on_epoch_end`, if the source has it, is called after the update. An iteration
        in progress and the object that was given to the Loader keep their values. `state_dict()` does not
        include the update: call it again when training resumes.

        Raises:
            OptionError: the source has no such attribute or is not an object with attributes, or the values are too
                large.
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
        """Worker deaths and skipped examples since the Loader was created.

        Example:
            >>> with Loader([1, 0, 4], transform=lambda n: 12 // n, on_error="skip", workers=0) as loader:
            ...     print([batch.tolist() for batch in loader], loader.stats().skips)
            [[12, 3]] 1
        """
        return self._producer.stats()

    def report(self) -> Report:
        """Where time went since the Loader was created: how long pulls waited, and what workers did meanwhile.

        It prints as a table; `to_dict()` is for JSON. Nothing has to be switched on for it.

        Example:
            >>> with Loader(range(64), batch_size=8, transform=lambda n: n * n, workers=0) as loader:
            ...     batches = list(loader)
            ...     report = loader.report()
            >>> report.batches, report.examples, report.stages["transform"].seconds > 0
            (8, 64, True)
        """
        return Report.of(self._producer.measured())

    @property
    def last_error(self) -> StokerError | None:
        """The last error that ended an iteration, or None; its `__cause__` is the user's own exception.

        Use it with `fit` and anything else that TensorFlow runs: those raise a TensorFlow error with only the text.

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

        Batches already handed over stay valid. Iterating raises `ClosedError`.
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
