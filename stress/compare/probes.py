"""What is measured without a call: rings, single-threaded work, and the bare timer.

Run as a child, on the interpreter to be measured; prints one JSON value.

    ring SECONDS    what hands an item from thread to thread, see bench/ring.py; ns
    work SECONDS    each saboteur's work alone in one thread; ms of the processor
    control         the bare timer of bench/ticker.py, until SIGTERM
"""

from __future__ import annotations

import json
import signal
import sys
import time
from statistics import median

from ..bench import ring, ticker
from .saboteurs import NAMES, make


def measure_rings(seconds: float) -> dict[str, float]:
    """Medians, as "contender.figure"."""
    figures = {}
    for name, times in ring.measure(seconds).items():
        for figure in ("alone", "across", "trip_p50", "trip_p99"):
            values: list[float] = getattr(times, figure)
            if values:
                figures[f"{name}.{figure}"] = median(values)
    return figures


def measure_work(seconds: float) -> dict[str, float]:
    """The cheapest turn of each of those that compute: what the others took away is not in it."""
    names = [name for name in NAMES if name not in ("logs", "stop")]
    saboteurs = dict(zip(names, make(names, lambda _, __: None), strict=True))
    best = dict.fromkeys(names, float("inf"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, one in saboteurs.items():
            turns = 3 if name == "guard" else 1  # its chunks come in three sizes
            begin = time.thread_time()
            for _ in range(turns):
                one.work()
            best[name] = min(best[name], (time.thread_time() - begin) * 1e3 / turns)
    return best


def control() -> dict[str, list[float]]:
    """The histogram of the bare timer."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    late = ticker.tick(lambda: not told).snapshot()
    return {"bounds": list(late.bounds), "counts": list(late.counts)}


def main() -> None:
    match sys.argv[1:]:
        case ["ring", seconds]:
            print(json.dumps(measure_rings(float(seconds))))
        case ["work", seconds]:
            print(json.dumps(measure_work(float(seconds))))
        case ["control"]:
            print(json.dumps(control()))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
