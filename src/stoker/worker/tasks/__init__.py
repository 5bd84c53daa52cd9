"""The kinds of tasks that a worker carries out.

index_tasks      rows of a batch, with example numbers known in advance
shard_tasks      the next rows of a shard, counted as they are made
open_shards      the shards that are open in this worker
shard_opener     opens a shard: iterator, random states, transform
shard_reader     one open shard, read from start to end, with its progress
first_examples   the first examples, made before the form of batches is known
first_shards     the first rows of shards, made before the form of batches is known
spec_inference   infers the spec from the first examples
digests          detects examples that change when they are made again
"""
