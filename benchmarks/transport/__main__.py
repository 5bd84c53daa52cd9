"""Rounds: every transport once a round, in an order that turns; then the tables and the chart."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.transport.payloads import PAYLOADS
from benchmarks.transport.report import Run, write
from benchmarks.transport.trainer import Figure, train
from benchmarks.transport.transports import TRANSPORTS

#: Seconds without a figure after which a transport counts as stuck.
_TIMEOUT = 90


def main() -> None:
    asked = _options()
    others, start = _others_cpu(), time.perf_counter()
    rounds: list[list[Figure]] = []
    for turn in range(asked.rounds):
        print(f"round {turn + 1} of {asked.rounds}", flush=True)
        rounds.append([])
        shift = turn % len(asked.transports)
        for name in asked.transports[shift:] + asked.transports[:shift]:
            for figure in _figures(name, asked.payloads, asked.seconds):
                rounds[-1].append(figure)
                print(_line(figure), flush=True)
    seconds = time.perf_counter() - start
    run = Run(rounds, (_others_cpu() - others) / seconds)
    print(f"{seconds:.0f} s; other processes took {run.others:.1f} cores meanwhile", flush=True)
    if not asked.dry:
        for path in write(run):
            print(f"wrote {path}")


def _figures(name: str, payloads: list[str], seconds: float) -> Iterator[Figure]:
    """Run one transport with these payloads in fresh processes. Raises RuntimeError if it fails or is stuck."""
    context = multiprocessing.get_context("spawn")
    results, far = context.Pipe(duplex=False)
    trainer = context.Process(target=train, args=(name, payloads, seconds, far))
    trainer.start()
    far.close()
    try:
        for payload in payloads:
            if not results.poll(_TIMEOUT):
                raise RuntimeError(f"{name} is stuck at {payload}")
            yield results.recv()
        trainer.join(_TIMEOUT)
    except EOFError:
        raise RuntimeError(f"{name} failed at {payload}; its traceback is above") from None
    finally:
        if trainer.is_alive() and trainer.pid is not None:
            os.killpg(trainer.pid, signal.SIGKILL)
        trainer.join()


def _others_cpu() -> float:
    """CPU seconds that the machine has spent on others than this process and those it waited for."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    ours = os.times()
    busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return busy - ours.user - ours.system - ours.children_user - ours.children_system


def _line(figure: Figure) -> str:
    return (
        f"  {TRANSPORTS[figure.transport].title:18}{figure.payload:8}{figure.nbytes / figure.seconds / 1e9:8.2f} GB/s"
        f"{figure.seconds * 1e6:12,.0f} µs a batch{figure.cpu_seconds * 1e6:12,.0f} µs CPU{figure.batches:8,} batches"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="the timed window of a cell")
    parser.add_argument("--transports", default=",".join(TRANSPORTS), help="some of these, with commas")
    parser.add_argument("--payloads", default=",".join(PAYLOADS), help="some of these, with commas")
    parser.add_argument("--dry", action="store_true", help="write nothing; so it is too with a part of the cells")
    asked = parser.parse_args()
    asked.transports, asked.payloads = asked.transports.split(","), asked.payloads.split(",")
    if unknown := {*asked.transports, *asked.payloads} - {*TRANSPORTS, *PAYLOADS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    asked.dry |= {*asked.transports, *asked.payloads} != {*TRANSPORTS, *PAYLOADS}
    return asked


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else TensorFlow tells on stderr that it is on
    main()
