"""Carries out what the scheduler says: consumers, scheduler, engine and slots meet here, under one lock.

producer          what both producers of batches have in common
coordinator       batches made by workers: takes in every event, carries out every command
in_memory         batches of arrays in memory, made without workers
spec_request      what batches look like, asked before the first one is made
slot_table        which batch lies how in which slot, and how much memory that takes
task_table        tasks as requests to workers, and replies as events
faults            which example is at fault, and what is left out
counters          deaths, and examples that were left out, are counted
source_guard      whether the source is what it was, and what `Loader.update` may set
consumer_errors   what a consumer is told when a batch cannot be made
consumption       which iteration is read, and how much of it was consumed
updates           what `Loader.update` gave, and from which epoch on it counts
"""
