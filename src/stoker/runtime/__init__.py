"""The effects of the interpreter and the operating system on a Loader: signals, locks, exits, limits.

signals            Ctrl-C and other signals, handled when no operation is half done
locks              a lock under which no signal handler and no garbage collection starts
interpreter_exit   closes Loaders before TensorFlow shuts its threads down
ctrl_c             Ctrl-C while TensorFlow waits for a batch in the main thread
cpus               how many CPUs this process may use
descriptors        checks that there are enough file descriptors for the workers
memory_budget      the memory that the Loaders of a Pool have in common
free_memory        how much memory the slots may take
shortage           the errors for memory or descriptors that the system refuses
"""
