"""WHO does what next: a pure state machine, events in and commands out.

It does no I/O, reads no clock and knows no process: tests drive it through any interleaving of
completions, deaths, releases and pulls. One `Scheduler` serves one pool of workers and slots and
any number of streams (a stream is one iteration of the source: one epoch).

    messages   the events and the commands
    machine    slots and workers, and what each event changes
    held       a task on its way
    suspects   what kills workers, of a task that they died at
    narrowing  which row of several kills the workers
    streams    what a stream is; batches that are known by number
    shards     batches that become known as shards are read
    marks      where such a stream stands: what another run needs to go on
"""

from stoker.scheduler.machine import RETRIES, SPARE, Scheduler
from stoker.scheduler.marks import Leftover, Mark
from stoker.scheduler.shards import ShardStream
from stoker.scheduler.streams import Place, RowsStream, Stream

__all__ = ["RETRIES", "SPARE", "Leftover", "Mark", "Place", "RowsStream", "Scheduler", "ShardStream", "Stream"]
