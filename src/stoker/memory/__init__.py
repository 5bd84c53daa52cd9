"""WHERE a batch lies: unnamed shared memory, and the references that keep it in use.

    layout          which byte of a slot holds which leaf of a batch          pure
    memfd           shared memory without a name
    slot            one reusable cell of shared memory, and its inbox
    example_store   examples that are made before the form of the batches is known
    packed          Python objects in transit to a worker
    long_message    messages that are too long for a socket
    progress_page   the activity of a worker for a Loader, readable even if it is stuck or dead
    worker_times    what a worker's time goes to, counted on its progress page
    process_page    the number and the Python stack of a worker process
    wait_page       whether the trainer waits for a Loader's batches
    batch_memory    the trainer's own memory for batches that it makes itself
    lease           the time in which a handed-over batch keeps its slot
    bundle          the program's pickle and arrays, written once, read by all workers
    remap           moves large arrays of the trainer into the bundle, copy-on-write

Only this folder creates shared memory. Slots and bundles are memfds: they have no name, do not
depend on the size of /dev/shm, and vanish with the last process that holds them.
"""
