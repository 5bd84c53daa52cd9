"""HOW workers run. Only this folder starts and ends processes.

engine            the `Engine` protocol, and the events that an engine reports to its listener
processes         the workers of a pool, for one Loader
worker_pool       worker processes, watched by one thread
member            what a pool knows of a Loader
departure         the end of a Loader's time in a pool
child             one worker process: start, signal, end
line              the connection of a Loader with a worker process
sockets           sockets between threads and processes
launcher          decides how a worker is started
interpreters      starts fresh interpreters, for workers and for the zygote
zygote_process    the zygote: asks it to fork workers
forked_process    a process that the zygote has forked
trainers_tracker  the resource tracker of this process's multiprocessing
watch             detects workers that make no progress
deaths            error messages for the deaths of workers
inline            no workers: the user's code runs in the pulling thread, or in one beside TensorFlow's
program_copy      a copy of the program, and the code that runs it without workers
snapshot          copies of the program in the trainer's process
changes           detects changes to the user's objects since the Loader was made
"""
