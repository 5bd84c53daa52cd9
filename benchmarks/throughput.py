"""Question: how many examples a second reach ``tf.data``, at what CPU time and memory?

python -m benchmarks.throughput [--rounds 5] [--cases a,b] [--contenders stoker,spdl] [--workers 2]
"""

from __future__ import annotations

from benchmarks.rounds import options, run

CONTENDERS = (
    *("user_code", "stoker", "spdl", "torch", "grain", "pydataset", "pool"),
    *("threads", "generator", "ready_batch"),
)


def main() -> None:
    asked = options("throughput", cases="a,b,c,d,e,f,g,h,i", contenders=CONTENDERS, rounds=5)
    run(asked, ["--window", str(asked.window)])


if __name__ == "__main__":
    main()
