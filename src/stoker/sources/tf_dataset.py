"""A `tf.data.Dataset`, pulled in the trainer, element by element, as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import optree

from stoker.errors import SourceError
from stoker.sources.classes import inherits
from stoker.sources.iterable import IterableSource
from stoker.sources.source import ReadyBatches
from stoker.structure.forms import Sparse
from stoker.structure.values import canonical
from stoker.validation import flag

#: Classes of datasets whose elements are batches, and of those that make elements of another kind out of batches.
_BATCHES = frozenset(
    ["_BatchDataset", "_ParallelBatchDataset", "_PaddedBatchDataset", "_DenseToRaggedDataset", "_RebatchDataset"]
)
_OTHERS = frozenset(
    ["_UnbatchDataset", "_FlatMapDataset", "_InterleaveDataset", "_ParallelInterleaveDataset", "_WindowDataset"]
)
#: Specs of components that have a form in NumPy.
_DENSE, _COMPOSITE = ("TensorSpec", "NoneTensorSpec"), ("RaggedTensorSpec", "SparseTensorSpec")
#: Cardinalities of TensorFlow that are not numbers.
_INFINITE, _UNKNOWN = -1, -2


class SparseElement:
    """A sparse tensor as NumPy arrays, with the attributes by which a sparse leaf is known."""

    def __init__(self, sparse: Sparse) -> None:
        self.indices, self.values, self.dense_shape = sparse


class TfElements:
    """Iterates a dataset, each time anew."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        kinds = {type(leaf).__name__ for leaf in optree.tree_leaves(dataset.element_spec)}
        self._is_dense = kinds <= {*_DENSE}
        if odd := kinds - {*_DENSE, *_COMPOSITE}:
            raise SourceError(
                f"the elements of the tf.data.Dataset hold a {min(odd).removesuffix('Spec')}, which has no form in "
                "NumPy. Convert it to tensors: for the parts of `window(n)`, `.flat_map(lambda part: part.batch(n))`."
            )

    def __iter__(self) -> Iterator[Any]:
        if self._is_dense:
            return iter(self._dataset.as_numpy_iterator())
        return (optree.tree_map(_numpy, element) for element in self._dataset)


class TfSource(IterableSource):
    """See `from_tf`."""

    def __init__(self, dataset: Any, batched: bool | None = None) -> None:
        if not inherits(dataset, "DatasetV2", "tensorflow"):
            raise SourceError(f"from_tf needs a tf.data.Dataset, got a {type(dataset).__name__}.")
        count = int(dataset.cardinality())
        length = math.inf if count == _INFINITE else None if count == _UNKNOWN else count
        is_batched = _makes_batches(dataset) if batched is None else flag("batched", batched)
        super().__init__(TfElements(dataset), length, is_batched)
        self.noun = "a tf.data.Dataset"
        self.ready = ReadyBatches(
            "the tf.data.Dataset makes batches, with `.batch(...)`",
            "Pass it before `.batch(...)` or, if these batches are your examples, `from_tf(dataset, batched=False)`",
        )

    def _whose_length(self) -> str:
        return "the tf.data.Dataset has cardinality {}, but it"


def _numpy(component: Any) -> Any:
    """A component of an element; its sparse and ragged tensors are no containers to `optree`."""
    value = canonical(component)
    return SparseElement(value) if isinstance(value, Sparse) else value


def _makes_batches(dataset: Any) -> bool:
    """True if the elements of a dataset are batches, judged by the datasets that it was made of."""
    kind, inputs = type(dataset).__name__, dataset._inputs()
    if kind in _BATCHES or kind in _OTHERS or not inputs:
        return kind in _BATCHES
    if kind == "_GroupByWindowDataset":
        raise SourceError(
            "the tf.data.Dataset was made with `group_by_window` or `bucket_by_sequence_length`, so its elements may "
            "be batches or examples. Pass `stoker.from_tf(dataset, batched=True)`, or False for examples."
        )
    return all(map(_makes_batches, inputs[1:] if kind == "_DirectedInterleaveDataset" else inputs))


def from_tf(dataset: Any, *, batched: bool | None = None) -> TfSource:
    """A source of the elements of a `tf.data.Dataset`, pulled in this process as NumPy arrays.

    `stoker.Loader(dataset)` is the same as `stoker.Loader(stoker.from_tf(dataset))`. TensorFlow's own steps run here,
    in its threads; the transform runs in the workers. Each epoch iterates the dataset anew. Its order and its random
    numbers are its own: when training resumes, the elements already taken are skipped, and come in the same order only
    if the dataset's do. Ragged and sparse components stay ragged and sparse.

    Args:
        dataset: a `tf.data.Dataset`.
        batched: True if its elements are batches, which pass unchanged; omit the Loader's `batch_size`. None for True
            if the dataset was made with `batch`, `padded_batch`, `ragged_batch` or `rebatch`. False to batch such
            elements again, for example windows of time.

    Raises:
        SourceError: it is no `tf.data.Dataset`, or its elements have no form in NumPy.

    Example (with TensorFlow installed):

        dataset = tf.data.TFRecordDataset(files).map(parse)
        train = stoker.Loader(dataset, batch_size=32, transform=augment)
    """
    return TfSource(dataset, batched)
