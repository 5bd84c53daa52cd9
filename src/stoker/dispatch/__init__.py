"""Where consumers, scheduler, engine and slots meet, under one lock.

streams      what consumers are served with, whoever makes the batches
dispatcher   takes in every event, and does what the scheduler says
taker        batches of arrays in memory, made without workers
probe        what batches look like, asked before the first one is made
updates      what `Loader.update` gave, and from which epoch on
shelf        which batch lies how in which slot, and how much memory that takes
tasks        tasks as questions for workers, and their answers as what the scheduler is told
inquest      which example is at fault
ledger       deaths, and examples that were left out, are counted
telling      what a consumer is told when a batch cannot be made
exits        the end of the interpreter
unheeded     Ctrl-C while TensorFlow waits for a batch
"""

from stoker.dispatch.dispatcher import Dispatcher
from stoker.dispatch.exits import close_before_others, exiting, rest_if_exiting
from stoker.dispatch.shelf import AHEAD_MOST, LEASES, Shelf, promised
from stoker.dispatch.streams import AT_ONCE, Streams
from stoker.dispatch.taker import Taker
from stoker.dispatch.unheeded import listen_for_interrupts

__all__ = [
    "AHEAD_MOST",
    "AT_ONCE",
    "LEASES",
    "Dispatcher",
    "Shelf",
    "Streams",
    "Taker",
    "close_before_others",
    "exiting",
    "listen_for_interrupts",
    "promised",
    "rest_if_exiting",
]
