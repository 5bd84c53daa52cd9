"""Turns examples into a batch in shared memory.

writer       writes examples into slots, for every kind of task
output       the destinations of writes: a slot's arrays, or single examples
fixed_rows   examples of known size: each is copied once, to its row
assemble     examples of differing size: sizes first, then each is copied once
fork_guard   detects a process forked by user code
fitting      checks a value against the expected leaf
keeping      protects examples from later changes by user code
likeness     checks that an example resembles the others, where it may be skipped
"""
