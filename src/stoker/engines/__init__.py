"""HOW workers run. Only this folder starts and ends processes.

engine          the `Engine` protocol, and the events that an engine reports to its listener
processes       worker processes, watched by one thread
child           one worker process: start, talk, end
launcher        decides how a worker is started
interpreters    starts fresh interpreters, for workers and for the zygote
zygote_process  the zygote: asks it to fork workers
forked_process  a process that the zygote has forked
watch           detects workers that make no progress
deaths          error messages for the deaths of workers
inline          no workers: the user's code runs in the pulling thread, or in one beside TensorFlow's
program_copy    a copy of the program, and the code that runs it without workers
snapshot        copies of the program in the trainer's process
changes         detects changes to the user's objects since the Loader was made
"""
