"""A Loader as the data that Keras takes on its backend; see `Loader.to_keras`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.coordinator.producer import BatchProducer
from stoker.errors import OptionError
from stoker.feed.class_weights import ClassWeights
from stoker.feed.keras_batches import maker, numpy_maker, require_numbers
from stoker.feed.keras_classes import adapter
from stoker.feed.keras_iterations import KerasIterations
from stoker.feed.tensorflow import dataset
from stoker.runtime.interpreter_exit import close_before_others

_BACKENDS = "tensorflow", "jax", "torch"


def keras_data(producer: BatchProducer, owner: object, class_weight: Mapping[int, float] | None) -> Any:
    """The batches that `producer` makes, for `fit` on the backend that Keras runs on.

    `owner` stops the producer when it is gone, and is kept alive.
    """
    backend, dtype = _keras()
    if producer.outline().single:
        raise OptionError(
            "to_keras() hands batches to Keras, but batch_size=None gives examples one by one. Pass a batch_size."
        )
    form = producer.form(apart=backend == "tensorflow")
    weights = ClassWeights(class_weight, form, dtype) if class_weight is not None else None
    if backend == "tensorflow":
        return dataset(producer, owner, form, producer.outline(), serialized=False, class_weights=weights)
    require_numbers(form, backend)
    close_before_others()
    return adapter(KerasIterations(producer, owner), maker(form, backend, weights), numpy_maker(form, weights))


def _keras() -> tuple[str, str]:
    """The backend that Keras runs on, and the dtype of its floats. Raises ImportError without Keras."""
    try:
        import keras
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != "keras":
            raise  # Keras is there, but its backend is not: its own message says which
        raise ImportError("to_keras() needs Keras: pip install keras") from error
    backend = str(keras.backend.backend())
    if backend not in _BACKENDS:
        raise OptionError(
            f"Keras runs on the backend {backend!r}, which to_keras() does not know. Set KERAS_BACKEND to tensorflow, "
            "jax or torch before Keras is imported, or iterate over the Loader itself for NumPy batches."
        )
    return backend, str(keras.backend.floatx())
