"""Shows what training waits for.

    pull_times        how long the trainer waited for batches, and how many were ready
    measured          all measurements of a Loader, taken at one moment
    report            what they amount to: shares, times per example, `to_dict`
    rendered_report   the report as text, with Rich where that is installed, and as HTML

What workers measure lies on their progress pages: see `stoker.memory.worker_times`.
"""
