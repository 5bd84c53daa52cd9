"""Calls and seeds the user's code in a worker, and keeps it up to date.

reading          makes examples from the source: read, seed, transform
seeding          gives an example the same random numbers in any worker
libraries        random states of third-party libraries
keras_seeds      the random states of Keras
current          tells user code which example is being made
program_in_use   the copy of the program for the current epoch
epoch_hooks      prepares the source for each epoch: `on_epoch_end`, `Loader.update`
worker_init      the user's function that is called once per worker
"""
