"""WHICH examples make WHICH batch, in which order. Pure: numbers in, numbers out.

permutation      a shuffle of n examples in O(1) memory
host_shard       this trainer's rows of a batch
shuffle_buffer   a seeded shuffle for streams of unknown length
index_lists      a list of indices or batches, checked
orders           the user's order: a list, or a function that gives one for each epoch
drawn_orders     orders that are drawn for the user: weighted, balanced, bucketed
order            the batches of an epoch, and the examples in each
batching         how examples form batches, and what is known about an epoch in advance
position         the position of training, saved and restored
"""
