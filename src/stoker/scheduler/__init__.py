"""Decides which worker does what next: a pure state machine with events in and commands out.

The scheduler does no I/O, reads no clock and has no access to processes. Tests can therefore drive it through
any interleaving of completions, deaths, releases and pulls. One `Scheduler` serves one pool of workers and slots
and any number of streams. A stream is one iteration of the source, that is, one epoch.

    events              the scheduler's input
    commands            the scheduler's decisions
    work                kinds of work, and tasks
    machine             the effect of each event: what is delivered, repeated, failed and started
    slot_ledger         which slots are free, and which consumers hold
    task_queue          tasks that wait or that workers hold, and who gets which
    pace                how much work a worker gets at a time
    auto_workers        finds the number of workers, with `workers="auto"`
    worker_starts       when to give up because workers fail to start
    in_flight           a task that a worker holds or will get
    fault_attribution   decides whether a task kills its workers or something outside does
    bisection           searches a range of rows for the one that kills workers
    streams             the stream protocol, and streams of numbered batches
    shard_streams       streams whose batches become known as shards are read
    resume_points       positions in such a stream from which another run can resume
"""
