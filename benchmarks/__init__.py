"""How fast, how soon and at what cost examples reach ``tf.data``, beside the peers.

One file a question::

    throughput.py      a question: examples/s, CPU and memory in the steady state      cases a to i
    first_batch.py     a question: how soon is the first batch there, at what memory    cases a c d e i
         │
      rounds.py        which cell runs when: alternating rounds, the results as they come
         │
      runner.py        one cell from outside: its process, its hard timeout, its memory (memory.py)
         │  one fresh process a cell
      cell.py          one cell from inside: first batch, warm-up, timed window, check (reading.py)
         │
      contenders/      how each loader is driven: one file each, one protocol
      user_code.py     limit 1: the user's code alone
      cases/           the data: what is read, in what batches, and how what came is checked
         │
      fit.py           by itself: a step of fit() through each door into Keras
      turn.py          by itself: the gap between two epochs of fit(), with and without validation
      auto.py          by itself: workers="auto" beside fixed numbers of workers
      start.py         by itself: the first batch, all workers, memory (imports/: what workers must import)
      arrays.py        by itself: from_arrays beside tf.data
      transport/       by itself: five ways from a worker to the trainer
      summary.py       medians, and ratios within a round                                pure
      report.py        the table and the chart in results/
"""
