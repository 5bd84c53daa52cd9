"""The kinds of tasks that a worker is given.

index_tasks      rows of a batch, known beforehand
shard_tasks      the next rows of a shard, counted as they come
shard_readers    shards that are open in this worker, and how far each has come
first_examples   the first examples, made before it is known what batches look like
first_shards     the first rows of shards, likewise
spec_inference   what the examples look like
digests          whether an example came out as it did before
"""
