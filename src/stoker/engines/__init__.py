"""HOW workers run. Only this folder starts and ends processes.

engine      the `Engine` protocol, and what an engine tells its listener
processes   fresh interpreters, watched by one thread
child       one worker process: start, talk, end
watch       which workers make no progress
deaths      how the death of workers is told to the user
inline      no worker: the pulling thread runs the user's code, or one beside TensorFlow's
hands       what runs it there: a copy of the program
snapshot    copies of the program in the trainer's process
changes     whether the user's objects have changed since the Loader was made
"""
