"""WHO does what next: a pure state machine, events in and commands out.

It does no I/O, reads no clock and knows no process: tests drive it through any interleaving of
completions, deaths, releases and pulls. One `Scheduler` serves one pool of workers and slots and
any number of streams (a stream is one iteration of the source: one epoch).

    messages   the events and the commands
    machine    the states, and what each event changes
"""

from stoker.scheduler.machine import RETRIES, Scheduler
from stoker.scheduler.messages import (
    Closed,
    Command,
    Deliver,
    Died,
    Done,
    Event,
    Fail,
    Failed,
    Finish,
    GiveUp,
    Joined,
    Pulled,
    Released,
    Respawn,
    Sized,
    Submit,
    Task,
)

__all__ = [
    "RETRIES",
    "Closed",
    "Command",
    "Deliver",
    "Died",
    "Done",
    "Event",
    "Fail",
    "Failed",
    "Finish",
    "GiveUp",
    "Joined",
    "Pulled",
    "Released",
    "Respawn",
    "Scheduler",
    "Sized",
    "Submit",
    "Task",
]
