"""The user's code in a worker: how it is called, seeded and kept up to date.

reading       from the source to examples: read, seed, transform
seeding       the same random numbers for an example, whichever worker makes it
libraries     random states of libraries
keras_seeds   the random states of Keras
current       which example is being made, for the user's code
epoch_hooks   the source as each epoch finds it: `on_epoch_end`, `Loader.update`
worker_init   the user's function that is called once a worker
"""
