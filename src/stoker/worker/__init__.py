"""The child process alone.

__main__                  a worker process
runner                    which kind of task is done by what
user_code                 the user's code: called, seeded, kept up to date
tasks                     the kinds of tasks
batching                  examples become a batch in shared memory
multiprocessing_tracker   the trainer's resource tracker and key, for the worker's multiprocessing
failpoints                where tests let a worker fail
"""
