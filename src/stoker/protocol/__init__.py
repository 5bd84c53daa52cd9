"""What crosses the socket between the trainer and its workers, and the program that they are given.

requests         what the trainer asks of a worker
replies          what a worker answers
messages         both as bytes
failures         the user's exceptions as messages, and back
error_types      errors that are a `WorkerError` and of the user's type as well
program          the user's source, transform and options, pickled once
transform        how a transform is called: with the example, or with its parts
random_objects   generators of random numbers that the user's objects hold
"""
