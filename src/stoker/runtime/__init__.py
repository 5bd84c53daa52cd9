"""What the interpreter and the operating system do to a Loader: signals, locks, exits, limits.

signals            Ctrl-C and other signals, handled when nothing is half done
locks              a lock under which no signal handler and no garbage collection starts
interpreter_exit   Loaders are closed before TensorFlow takes its threads down
ctrl_c             Ctrl-C while TensorFlow waits for a batch in the main thread
cpus               how many CPUs this process may use
descriptors        how many file descriptors workers need, and whether there are as many
free_memory        how much memory the slots may take
shortage           what is said when the system gives no memory or descriptor
"""
