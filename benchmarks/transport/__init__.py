"""How the same batches travel from one worker process to the trainer, five ways.

    python -m benchmarks.transport

::

    __main__.py      rounds: every transport once a round, in an order that turns
         │
      trainer.py     one transport in two fresh processes: what a batch costs, and whether it came whole
         │
      transports.py  the five ways, one class each
      payloads.py    the batches: floats of five sizes, nested images, texts                pure
         │
      report.py      the tables and the chart in results/, the short table in docs/         pure but for the files
"""
