"""What one iteration reads: a kind of epoch for each kind of source.

epoch     what they have in common
indexed   of a source that is read by index
sharded   of a generator function over shards
items     of an iterable, pulled in the trainer
saved     how far shards have come, as JSON
"""

from __future__ import annotations

from stoker.epochs.epoch import Batching, Early, Epoch, Looked
from stoker.epochs.indexed import IndexEpoch
from stoker.epochs.items import ItemEpoch
from stoker.epochs.sharded import ShardEpoch

__all__ = ["Batching", "Early", "Epoch", "IndexEpoch", "ItemEpoch", "Looked", "ShardEpoch"]
