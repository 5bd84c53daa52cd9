"""What one iteration reads: the scheduler's work as requests to workers. One file a kind.

epoch            what they have in common
index_epoch      of a source that is read by index
shard_epoch      of a generator function over shards
item_epoch       of an iterable, pulled in the trainer
shard_progress   how far shards have come, as JSON
"""
