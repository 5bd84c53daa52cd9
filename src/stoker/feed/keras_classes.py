"""The objects that `fit`, `evaluate` and `predict` take on JAX and PyTorch, as subclasses of Keras' own classes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any, NoReturn

from stoker.errors import OptionError, StateError, cannot_be_copied
from stoker.feed.keras_frames import check_arguments, read_to_the_end
from stoker.feed.keras_iterations import KerasIterations, KerasIterator, Leaves

#: The first version of Keras whose `fit` takes a DataAdapter as it is.
_TAKES_ADAPTERS = (3, 7)


def takes_adapters() -> bool:
    """True if this version of Keras takes a DataAdapter as it is."""
    import keras

    return tuple(int(part) for part in keras.__version__.split(".")[:2]) >= _TAKES_ADAPTERS


def adapter(iterations: KerasIterations, make: Callable[[Leaves], Any], numpy: Callable[[Leaves], Any]) -> Any:
    """The batches for Keras.

    Args:
        iterations: makes the iterations.
        make: makes the batch that Keras gets from the arrays of a batch.
        numpy: makes the same batch of NumPy arrays.
    """
    return (_adapter_class() if takes_adapters() else _dataset_class())(iterations, make, numpy)


@cache
def _adapter_class() -> Any:
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter

    class LoaderAdapter(DataAdapter):  # type: ignore[misc]  # Keras has no types
        """The batches of a Loader, for `fit`, `evaluate` and `predict`; see `Loader.to_keras`."""

        def __init__(
            self, iterations: KerasIterations, make: Callable[[Leaves], Any], numpy: Callable[[Leaves], Any]
        ) -> None:
            self._iterations, self._make, self._numpy = iterations, make, numpy

        @property
        def num_batches(self) -> int | None:
            its = self._iterations
            check_arguments(sys._getframe(1), is_endless=its.is_endless, fills=its.fills)
            return its.num_batches

        @property
        def batch_size(self) -> int | None:
            return self._iterations.producer.outline().static_rows

        def get_jax_iterator(self) -> KerasIterator:
            if self._iterations.num_batches is None:
                read_to_the_end(sys._getframe(1))
            return KerasIterator(self._iterations, self._make)

        get_torch_dataloader = get_jax_iterator

        def get_numpy_iterator(self) -> KerasIterator:
            return KerasIterator(self._iterations, self._numpy)

        def get_tf_dataset(self) -> NoReturn:
            raise OptionError(
                "to_keras() was called for another backend of Keras than TensorFlow. Call to_tf() for a "
                "tf.data.Dataset."
            )

        def repeat(self) -> Any:
            """The same batches, endlessly: where an epoch ends, the next one follows."""
            its = self._iterations
            return type(self)(KerasIterations(its.producer, its.owner, repeats=True), self._make, self._numpy)

        def __reduce_ex__(self, protocol: object) -> NoReturn:
            raise cannot_be_copied("the result of to_keras()")

    return LoaderAdapter


@cache
def _dataset_class() -> Any:
    import keras

    class LoaderDataset(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        """The same for older Keras, which asks for batches by index, in an order of its own: the index is ignored."""

        def __init__(
            self, iterations: KerasIterations, make: Callable[[Leaves], Any], numpy: Callable[[Leaves], Any]
        ) -> None:
            super().__init__()
            if iterations.num_batches is None and not iterations.is_endless:
                raise OptionError(
                    f"Keras {keras.__version__} needs to know the number of batches, and this Loader does not know it. "
                    "Upgrade Keras to 3.7 or later, or let the source have a length."
                )
            self._iterations, self._make, self._numpy = iterations, make, numpy
            self._frame: FrameType | None = None
            self._iterator: KerasIterator | None = None

        @property
        def num_batches(self) -> int | None:
            its = self._iterations
            check_arguments(sys._getframe(1), is_endless=its.is_endless, fills=its.fills)
            return its.num_batches

        def __getitem__(self, index: int) -> Any:
            frame = sys._getframe(1)  # of the generator that is one iteration of Keras
            if self._iterator is None or frame is not self._frame:
                self._frame, self._iterator = frame, KerasIterator(self._iterations, self._make)
            try:
                batch = self._iterator.take(frame)
            except StopIteration:
                raise StateError(
                    f"Keras {keras.__version__} expects all {self.num_batches} batches of an epoch, but this one was "
                    "resumed after its start and has fewer. Upgrade Keras to 3.7 or later."
                ) from None
            return batch if isinstance(batch, tuple | list | dict) else (batch,)

        def repeat(self) -> Any:
            """The same batches, endlessly: where an epoch ends, the next one follows."""
            its = self._iterations
            return type(self)(KerasIterations(its.producer, its.owner, repeats=True), self._make, self._numpy)

        def __reduce_ex__(self, protocol: object) -> NoReturn:
            raise cannot_be_copied("the result of to_keras()")

    return LoaderDataset
