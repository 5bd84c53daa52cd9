"""Epochs: turn the scheduler's work for one iteration into requests to workers. One module per kind.

epoch            the base class of all epochs
numbered_epoch   the base class of epochs whose examples are numbered
index_epoch      epochs of sources that are read by index
shard_epoch      epochs of generator functions over shards
item_epoch       epochs of iterables, which are pulled in the trainer
puller           the thread that pulls an iterable's items
shard_progress   progress of shards, to JSON and back
"""
