"""The messages between the trainer and its workers, and the program that the workers load.

requests         messages from the trainer to a worker
replies          messages from a worker to the trainer
messages         encoding and decoding of both
failures         user exceptions to messages, and back
error_types      `WorkerError` subclasses that also have the user's exception type
invitations      asks a worker process to serve a Loader
program          the user's source, transform and options, pickled once
surroundings     what the user's code finds in a worker besides its own objects
transform        how a transform is called: with the example, or with its parts
random_objects   random generators held by the user's objects
"""
