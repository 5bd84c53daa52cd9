"""Carries out the scheduler's commands: consumers, scheduler, engine and slots meet here, under one lock.

producer          the producer protocol, and the base of both producers
coordinator       batches made by workers: receives every event, carries out every command
engine_listener   turns what the engine reports into events
outboxes          outcomes of streams that wait for their consumers
early_start       what is begun before the first pull
epoch_ahead       the epoch whose first batches are made before it begins
in_memory         batches of arrays in memory, made without workers
form_finder       determines the form of batches before the first one is made
look_options      which examples must be inspected for that
numbered_look     the inspected examples, where they are known by number
sharded_look      the inspected shards
slot_table        layout of the batches in their slots, and the memory that they take
task_table        tasks as requests to workers, and replies as events
faults            identifies the example at fault, and leaves examples out
worker_tuner      changes the number of workers, with `workers="auto"`
counters          counts deaths and examples that were left out
source_guard      detects changes of the source, and checks the values for `Loader.update`
consumer_errors   errors for consumers, made from the failures that workers report
consumption       the current iteration, and how much of it was consumed
updates           values from `Loader.update`, and the epochs they apply to
"""
