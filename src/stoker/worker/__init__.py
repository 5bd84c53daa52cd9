"""Code that runs the user's code: in worker processes, and in the inline engine of `workers=0`.

__main__                  a worker process
served_loader             one of the Loaders that a worker serves
zygote                    the interpreter that workers are forked from
unseeded                  random generators that forked workers must not have in common
clone                     forks a process beside this one, not beneath it
runner                    dispatches requests to the kinds of tasks
context                   what the parts of a worker share
failed                    failures of tasks, as replies
current_task              the task at work, as the worker and the trainer see it
stage_clock               measures what the time of a task goes to
user_code                 calls and seeds the user's code, and keeps it up to date
tasks                     one module per kind of task
batching                  turns examples into a batch in shared memory
multiprocessing_tracker   shares the trainer's resource tracker and key with the worker's multiprocessing
failpoints                points at which tests make a worker fail
"""
