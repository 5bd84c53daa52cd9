"""WHO does what next: a pure state machine, events in and commands out.

It does no I/O, reads no clock and knows no process: tests drive it through any interleaving of
completions, deaths, releases and pulls. One `Scheduler` serves one pool of workers and slots and
any number of streams (a stream is one iteration of the source: one epoch).

    events              what the scheduler is told
    commands            what it decides
    work                the kinds of work, and tasks
    machine             slots and workers, and what each event changes
    in_flight           a task that a worker is making
    fault_attribution   decides whether a task kills its workers or something outside does
    bisection           which row of several kills the workers
    streams             what a stream is; batches that are known by number
    shard_streams       batches that become known as shards are read
    resume_points       where such a stream stands: what another run needs to go on
"""
