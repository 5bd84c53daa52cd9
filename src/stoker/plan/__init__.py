"""WHICH examples make WHICH batch, in which order. Pure: numbers in, numbers out.

permutation      a shuffle of n examples in O(1) memory
host_shard       the rows of a batch that are this trainer's
shuffle_buffer   a seeded order for runs of unknown length
order            the batches of an epoch, and the examples in each
batching         how examples are made into batches, and what is known of them beforehand
position         how far training has come
"""
