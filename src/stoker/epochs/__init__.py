"""Epochs: turn the scheduler's work for one iteration into requests to workers. One module per kind.

epoch            the base class of all epochs
index_epoch      epochs of sources that are read by index
shard_epoch      epochs of generator functions over shards
item_epoch       epochs of iterables, which are pulled in the trainer
shard_progress   progress of shards, to JSON and back
"""
