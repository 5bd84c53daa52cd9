"""WHERE a batch lies: shared memory without names, and who may still see it.

    layout          which byte of a slot holds which leaf of a batch          pure
    memfd           shared memory without a name
    slot            one reusable cell of shared memory, and its inbox
    example_store   examples that were made before it was known what batches look like
    packed          Python objects on their way to a worker
    long_message    messages that are too long for a socket
    progress_page   what a worker is at, readable when it is stuck or dead
    pool            the trainer's own memory for batches that it makes itself
    lease           the time in which a handed-over batch keeps its slot
    bundle          the program's pickle and arrays, written once, read by all workers
    remap           large arrays of the trainer move into the bundle, copy-on-write

Only this folder makes shared memory. Slots and bundles are memfds: they have no name, do not
depend on the size of /dev/shm, and vanish with the last process that holds them.
"""
