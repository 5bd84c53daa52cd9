"""WHERE a batch lies: shared memory without names, and who may still see it.

    layout    which byte of a slot holds which leaf of a batch          pure
    memfd     shared memory without a name
    slot      one reusable cell of shared memory, and its inbox
    parcel    Python objects on their way to a worker
    store     single examples that were made before it was known what batches look like
    letter    messages that are too long for a socket
    board     what a worker is at
    budget    how much memory the slots may take
    pool      the trainer's own memory for batches that it makes itself
    lease     the time in which a handed-over batch keeps its slot
    bundle    the program's pickle and arrays, written once, read by all workers
    adopt     large arrays of the trainer's move into the bundle
    refused   what is said when the system gives none

Only this folder makes shared memory. Slots and bundles are memfds: they have no name, do not
depend on the size of /dev/shm, and vanish with the last process that holds them.
"""

from stoker.memory.board import Board, Phase, Place
from stoker.memory.bundle import is_bundled, open_bundle, write_bundle
from stoker.memory.layout import Layout
from stoker.memory.lease import Leases
from stoker.memory.memfd import Memfd, above_standard
from stoker.memory.pool import Pool
from stoker.memory.refused import wanted
from stoker.memory.slot import Inbox, Slot
from stoker.memory.store import Store

__all__ = [
    "Board",
    "Inbox",
    "Layout",
    "Leases",
    "Memfd",
    "Phase",
    "Place",
    "Pool",
    "Slot",
    "Store",
    "above_standard",
    "is_bundled",
    "open_bundle",
    "wanted",
    "write_bundle",
]
