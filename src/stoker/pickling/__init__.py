"""The user's code and objects as bytes, on their way to a fresh interpreter.

    pickler              cloudpickle, and what it leaves to be done
    importable           which modules a fresh interpreter cannot import
    script_definitions   definitions of a script that nothing refers to by name
    stand_ins            what stands in a worker for what it cannot import
    unpicklable          which part of an object cannot be pickled

Functions and classes of a script, a notebook or an `exec` are in no module that a worker could
import. They are sent by value; all others by name.
"""
