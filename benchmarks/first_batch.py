"""Question: how soon is the first batch there, and how much memory does the loader take?

Read for a little, then held still with the loader open, as by a long training step: that is when its queues are
full. Large batches, case e, are where loaders that make whole batches in each worker pay most.

python -m benchmarks.first_batch [--rounds 5] [--cases e] [--contenders stoker,spdl] [--workers 2]
"""

from __future__ import annotations

from benchmarks.rounds import options, run

CONTENDERS = ("stoker", "spdl", "torch", "torch_spawn", "grain", "pydataset", "threads", "generator")
_PAUSE_S = 5.0


def main() -> None:
    asked = options("first_batch", cases="a,c,d,e,i", contenders=CONTENDERS, rounds=5)
    run(asked, ["--window", "0", "--after", "0", "--pause", str(_PAUSE_S)])


if __name__ == "__main__":
    main()
