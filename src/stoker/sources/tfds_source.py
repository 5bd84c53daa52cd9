"""What `as_data_source` of TensorFlow Datasets returns: dicts, read by index."""

from __future__ import annotations

from typing import Any

from stoker.errors import SourceError
from stoker.sources.chosen import Chosen
from stoker.sources.classes import inherits
from stoker.sources.map_style import MapSource


class TfdsSource(MapSource):
    """See `from_tfds`."""

    def __init__(self, source: Any, columns: Any = None) -> None:
        if not inherits(source, "BaseDataSource", "tensorflow_datasets"):
            raise SourceError(
                "from_tfds needs a data source of TensorFlow Datasets, `tfds.data_source(name, split=...)`, got a "
                f"{type(source).__name__}."
            )
        super().__init__(source)
        self.noun, self.names = "a data source of TensorFlow Datasets", frozenset()
        if columns is not None:
            self.step = Chosen(columns)
            self.step.check(source.dataset_info.features)


def from_tfds(source: Any, columns: Any = None) -> TfdsSource:
    """A source of the examples of a TensorFlow Datasets data source, `tfds.data_source(...)`, read by index.

    `stoker.Loader(source)` is the same without `columns`: its examples are dicts. Neither needs TensorFlow.

    Args:
        source: the result of `tfds.data_source` or `builder.as_data_source`, for one split.
        columns: ("image", "label") for tuples (x, y); a list of names for dicts of these; a name for its values alone.
            A tuple may hold lists: (["ids", "mask"], "label"). None for dicts of all features.

    Raises:
        SourceError: `source` is something else.
        OptionError: a column is unknown; the message lists those that there are.

    Example (with tensorflow-datasets installed):

        train = stoker.Loader(stoker.from_tfds(tfds.data_source("mnist", split="train"), columns=("image", "label")))
    """
    return TfdsSource(source, columns)
