"""WHAT travels by value: the user's code on its way to a fresh interpreter.

    modules    which modules a fresh interpreter cannot import
    pickler    cloudpickle, and what it leaves to be done
    rest       the definitions of a script that nothing refers to by name: pickle files may
    arrival    what stands in a worker for what could not be imported

Functions and classes of a script, a notebook or an `exec` are in no module that a worker could import. They
are sent whole; all others by their name.
"""
