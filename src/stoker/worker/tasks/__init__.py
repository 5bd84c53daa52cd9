"""The kinds of tasks that a worker carries out.

index_tasks      rows of a batch, with example numbers known in advance
shard_tasks      the next rows of a shard, counted as they are made
shard_readers    the shards open in this worker, with their progress
first_examples   the first examples, made before the form of batches is known
first_shards     the first rows of shards, made before the form of batches is known
spec_inference   infers the spec from the first examples
digests          detects examples that change when they are made again
"""
