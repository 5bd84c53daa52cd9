"""Examples become a batch in shared memory.

writer       examples into slots, whatever task they belong to
output       where a worker writes: a slot's arrays, or single examples
fixed_rows   examples whose sizes are known: each is copied once, to its row
assemble     examples whose sizes differ: sizes first, then each is copied once
fork_guard   whether this process is a copy that user code forked
fitting      whether a value is the leaf that is expected
keeping      what is kept of an example while user code runs on
likeness     whether an example is like the others, where it may be left out
"""
