"""What runs in the child: it reads, seeds, collates and reports.

__main__      a worker process: `python -m stoker.worker`
program       the user's code, and how it gets there
unpicklable   which part of it cannot be sent
runner        tasks: read, transform, write
seeding       the same random numbers for an example, whichever worker makes it
collate       examples into the rows of a slot
report        exceptions as messages
messages      what crosses the socket
"""

#: Variables of the environment that differ while a worker starts; it takes them back from `STOKER_…`.
CHANGED = "PYTHONPATH", "PYTHONSAFEPATH"
