"""WHERE examples come from: one file a kind of source, and what a transform may say about them.

map_style   `__len__` and `__getitem__`, the whole source within reach
arrays      arrays, read by rows
columns     tables, lists and sparse matrices as such arrays
stored      arrays in HDF5 and zarr files
mistaken    what is no source, or another kind: which function takes it
sharded     a generator function over shards
iterable    pulled in the trainer, one item after the other
ready       Keras datasets, whose elements are batches already
marks       SKIP and Many: none or several examples in the place of one
"""

from __future__ import annotations

from stoker.sources.arrays import ArraySource
from stoker.sources.iterable import IterableSource
from stoker.sources.map_style import MapSource
from stoker.sources.ready import is_keras
from stoker.sources.sharded import ShardedSource
from stoker.sources.stored import StoredRows, is_stored

__all__ = ["ArraySource", "IterableSource", "MapSource", "ShardedSource", "StoredRows", "is_keras", "is_stored"]
