"""Pickling of the user's code and objects for a fresh interpreter.

    pickler              cloudpickle, extended for objects that it does not handle
    importable           which modules a fresh interpreter cannot import
    script_definitions   definitions of a script that the program does not refer to
    tensors              tensors of PyTorch that do not survive its own pickling
    stand_ins            a worker's stand-ins for modules that it cannot import
    unpicklable          which part of an object cannot be pickled

Functions and classes from a script, a notebook or an `exec` are in no module that a worker could
import. They are sent by value, all others by name.
"""
