"""Where consumers, scheduler, engine and slots meet, under one lock.

dispatcher   takes in every event, and does what the scheduler says
probe        what batches look like, asked before the first one is made
shelf        which batch lies how in which slot, and how much memory that takes
inquest      which example is at fault
ledger       deaths, and examples that were left out, are counted
telling      what a consumer is told when a batch cannot be made
exits        the end of the interpreter
"""

from stoker.dispatch.dispatcher import Dispatcher
from stoker.dispatch.exits import close_before_others, exiting
from stoker.dispatch.shelf import AHEAD_MOST, LEASES, Shelf

__all__ = ["AHEAD_MOST", "LEASES", "Dispatcher", "Shelf", "close_before_others", "exiting"]
