"""A Loader as a `tf.data.Dataset`, without copying."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stoker.dispatch import close_before_others, exiting
from stoker.errors import ClosedError
from stoker.plan import Plan
from stoker.spec import Spec

if TYPE_CHECKING:
    import tensorflow as tf

    from stoker.loader import Loader


def dataset(loader: Loader, spec: Spec, plan: Plan) -> tf.data.Dataset:
    """The batches of `loader`; see `Loader.to_tf`."""
    tf = _tensorflow()
    close_before_others()

    def epoch() -> Iterator[Any]:
        batches = iter(loader)
        try:
            for batch in batches:
                yield tuples(batch)
        except ClosedError:
            if not exiting():
                raise

    made = tf.data.Dataset.from_generator(epoch, output_signature=element_spec(spec, plan.static_rows()))
    return made.apply(tf.data.experimental.assert_cardinality(plan.batches)).prefetch(2)


def element_spec(spec: Spec, rows: int | None) -> Any:
    """`spec` for batches of so many rows (None: it varies) as nested `tf.TensorSpec`s."""
    tf = _tensorflow()
    return tuples(
        spec.unflatten(tf.TensorSpec((rows, *leaf.shape), tf.as_dtype(leaf.dtype)) for leaf in spec.leaves)
    )


def tuples(structure: Any) -> Any:
    """The structure with tuples for lists, which tf.data takes for tensors."""
    if isinstance(structure, dict):
        return type(structure)((key, tuples(value)) for key, value in structure.items())
    if isinstance(structure, list):
        return tuple(tuples(value) for value in structure)
    if isinstance(structure, tuple):
        parts = [tuples(value) for value in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return structure


def _tensorflow() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError("to_tf() and element_spec need TensorFlow: pip install tensorflow (or tensorflow-cpu)") from error
    return tensorflow
