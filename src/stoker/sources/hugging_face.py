"""Hugging Face datasets: a `Dataset` is read by index, an `IterableDataset` by its own shards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stoker.errors import OptionError, SourceError
from stoker.sources.chosen import Chosen
from stoker.sources.classes import inherits
from stoker.sources.map_style import MapSource
from stoker.sources.sharded import ShardedSource
from stoker.sources.source import Source
from stoker.validation import flag, length_of

if TYPE_CHECKING:
    import numpy as np

#: Formats whose rows are tables.
_TABLES = "arrow", "pandas", "polars"
#: Steps of an IterableDataset that treat each example, or each batch given to `map`, for itself. They give the same
#: examples for a shard alone as for the whole. Steps that are not listed may not, as `take`, `skip` and interleaving.
_BY_EXAMPLE = frozenset(
    {
        *("ExamplesIterable", "ArrowExamplesIterable", "RebatchedArrowExamplesIterable", "FormattedExamplesIterable"),
        *("TypedExamplesIterable", "SelectColumnsIterable", "MappedExamplesIterable", "FilteredExamplesIterable"),
        *("VerticallyConcatenatedMultiSourcesExamplesIterable", "RepeatExamplesIterable"),
        *("BufferShuffledExamplesIterable", "InterleavedShardsExamplesIterable"),
    }
)
#: Shards that are read in turn.
_OPEN = 16


class HuggingFaceSource(MapSource):
    """A `datasets.Dataset`; see `from_hugging_face`."""

    def __init__(self, dataset: Any, columns: Any = None) -> None:
        kind = dataset.format["type"]
        _refuse_tables(kind)
        if columns is not None:
            self.step = chosen = Chosen(columns)
            if kind != "custom":  # a transform of the user's makes columns of its own
                has = dataset.column_names if dataset.format["output_all_columns"] else dataset.format["columns"]
                chosen.check(has)
                dataset = dataset.select_columns(chosen.names())
        super().__init__(dataset)
        self.noun, self.names = "a Hugging Face Dataset", frozenset()


class HuggingFaceStreamSource(ShardedSource):
    """A `datasets.IterableDataset`; see `from_hugging_face`."""

    noun = "a Hugging Face IterableDataset"

    def __init__(self, dataset: Any, columns: Any = None, length: float | None = None, in_order: bool = False) -> None:
        formatting = getattr(dataset, "_formatting", None)
        _refuse_tables(getattr(formatting, "format_type", None))
        if columns is not None:
            self.step = chosen = Chosen(columns)
            if dataset.column_names is not None:
                chosen.check(dataset.column_names)
                dataset = dataset.select_columns(chosen.names())
        nodes = _nodes(dataset)
        self._dataset, self._length = dataset, length_of(length)
        self._shuffles = getattr(dataset, "_shuffling", None) is not None or any(
            type(node).__name__ == "BufferShuffledExamplesIterable" for node in nodes
        )
        self.count = 1 if flag("in_order", in_order) or not _splits(dataset, nodes) else dataset.num_shards
        if self.count < 1:
            raise SourceError("the source is empty: this Hugging Face IterableDataset has no shards.")
        is_endless = any(getattr(node, "num_times", 0) is None for node in nodes)  # repeated: no shard would be next
        self.open_shards = self.count if is_endless else _OPEN

    @property
    def length(self) -> float | None:
        return self._length

    def read(self, index: int, rng: np.random.Generator) -> Iterable[Any]:
        return self.read_at(0, index, rng)

    def read_at(self, epoch: int, index: int, rng: np.random.Generator) -> Iterable[Any]:
        """The examples of a shard. A shuffled dataset is shuffled anew in each epoch, as by its `set_epoch`."""
        if self.count == 1:
            part: Any = self._dataset.repeat(1)  # an object of its own, which has a position and an epoch
        else:
            from datasets.distributed import split_dataset_by_node

            part = split_dataset_by_node(self._dataset, rank=index, world_size=self.count)
        part.set_epoch(self._dataset.epoch + (epoch if self._shuffles else 0))
        # Its state does not hold what lies in a shuffle buffer. Without a state, the shard is read again.
        examples: Iterable[Any] = iter(part) if self._shuffles else part
        return examples


def _refuse_tables(kind: Any) -> None:
    if kind in _TABLES:
        raise SourceError(
            f"the rows of a Hugging Face dataset in the format {kind!r} are tables, not examples. Pass it "
            "`.with_format(None)`, or `.with_format('numpy')`."
        )


def _nodes(dataset: Any) -> list[Any]:
    """The steps of an IterableDataset, from the last one to its data."""
    nodes = [dataset._ex_iterable]
    for node in nodes:
        nodes += [node.ex_iterable] if hasattr(node, "ex_iterable") else getattr(node, "ex_iterables", ())
    return nodes


def _splits(dataset: Any, nodes: list[Any]) -> bool:
    """True if the shards of a dataset have the same examples together as the dataset as a whole."""
    if getattr(dataset, "_distributed", None) is not None:  # it is a part of another one's shards already
        return False
    for node in nodes:
        function = getattr(node, "function", None)
        is_whole = type(node).__name__ not in _BY_EXAMPLE or getattr(node, "with_indices", False)
        if is_whole or getattr(node, "drop_last_batch", False) or getattr(function, "__name__", "") == "_batch_fn":
            return False
    return True


def from_hugging_face(
    dataset: Any, columns: Any = None, *, length: float | None = None, in_order: bool = False
) -> Source:
    """A source of the rows of a Hugging Face `Dataset`, or of the examples of an `IterableDataset`.

    `stoker.Loader(dataset)` is the same without options. Rows are dicts, in the dataset's own format
    (`with_format`, `with_transform`). A `Dataset` is read by index, in runs of rows; its Arrow files are mapped by the
    workers, not copied. An `IterableDataset` is read by its own shards, each from start to end by one worker, and
    batches are taken from up to 16 of them in turn. One whose steps need all examples in one row (`take`, `skip`,
    `interleave_datasets`, `with_indices`, `batch`, `split_dataset_by_node`) is read as one shard. One that is shuffled
    is shuffled anew in each epoch, as after `set_epoch`.

    Args:
        dataset: a `datasets.Dataset` or `datasets.IterableDataset`; one split.
        columns: ("image", "label") for tuples (x, y); a list of names for dicts of these; a name for its values alone.
            A tuple may hold lists: (["input_ids", "attention_mask"], "label"). None for dicts of all columns. Columns
            that are not needed are not decoded.
        length: number of examples of an IterableDataset, if known; it makes the cardinality known, and any other
            number is an error. `math.inf` for one that never ends.
        in_order: True to take the examples of an IterableDataset in its own order, as `for example in dataset` does.
            It is then read as one shard, by one worker at a time.

    Raises:
        SourceError: `dataset` is something else, or its format is a table.
        OptionError: a column is unknown; the message lists those that there are.

    Example (with datasets installed):

        rows = datasets.load_dataset("mnist", split="train")
        train = stoker.Loader(stoker.from_hugging_face(rows, columns=("image", "label")), shuffle=True)
    """
    if inherits(dataset, "IterableDataset", "datasets"):
        return HuggingFaceStreamSource(dataset, columns, length, in_order)
    if inherits(dataset, "Dataset", "datasets"):
        for name, value, default in (("length", length, None), ("in_order", in_order, False)):
            if value != default:
                raise OptionError(f"{name}={value!r} is for an IterableDataset. A Dataset is read by index: omit it.")
        return HuggingFaceSource(dataset, columns)
    kind = type(dataset).__name__
    if inherits(dataset, "DatasetDict", "datasets") or inherits(dataset, "IterableDatasetDict", "datasets"):
        splits = ", ".join(map(repr, dataset))
        raise SourceError(f"a Hugging Face {kind} holds splits by name. Pass one of them: {splits}.")
    raise SourceError(f"from_hugging_face needs a datasets.Dataset or datasets.IterableDataset, got a {kind}.")
