"""What runs in the child: it reads, seeds, collates and reports.

__main__      a worker process
program       the user's code, and how it gets there
lent          the trainer's tracker and key for the worker's multiprocessing
initial       worker_init: what is called first
snapshot      copies of it in the trainer's process
changes       whether the user's objects have changed since
unpicklable   which part of it cannot be sent
runner        tasks: which of the stations below does what
turns         the source as each epoch finds it
numbered      tasks that are rows of a batch, known beforehand
steps         tasks that are the next rows of a shard, counted as they come
writer        examples into slots, and which one does harm there
making        single examples that are made before that is known, and how they are used
opening       shards that are opened before that is known
describe      what the examples look like
calling       how a transform is called: with the example, or with its parts
reading       from the source to examples: read, seed, transform
likeness      whether an example is like the others, where it may be left out
digests       whether an example came out as it did before
lanes         shards that are open, and how far each has come
seeding       the same random numbers for an example, whichever worker makes it
libraries     random states of libraries, and of objects
keras_seeds   those of Keras
current       which example is at work, for the user's code
fitting       whether a value is the leaf that is expected
keeping       what is kept of an example while user code runs on
collate       examples into the rows of a slot, where each has its place
assemble      examples whose sizes differ into one batch
tensorproto   tensors as TensorFlow serialises them
output        what is written where
report        exceptions as messages
kinds         errors that are of the user's own type as well
failpoints    where tests let a worker fail
messages      what crosses the socket
"""

import signal

#: A worker that gets this signal writes its Python stack behind its board. One that nobody else uses.
STACK_SIGNAL = int(signal.SIGRTMAX) - 3 if hasattr(signal, "SIGRTMAX") else 0
