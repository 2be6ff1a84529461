"""A bare timer: the pacer's clock with nothing behind it. The control of every lateness figure.

Run by `pacing.py` beside the server: what this process suffers is the machine's doing, not ours.
Prints a JSON list: p50, p99, p99.9 and the most, in ms. Takes the seconds to run for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from threadline.observe.histogram import LATENESS_MS, Histogram
from threadline.threads.realtime import prepare_thread

PERIOD = 5_000_000  # ns, the pacer's sub-tick


def tick(going: Callable[[], bool]) -> Histogram:
    """How late this thread woke, every 5 ms for as long as `going` says."""
    prepare_thread()
    late = Histogram(LATENESS_MS)
    timer = os.timerfd_create(time.CLOCK_MONOTONIC)
    start = time.monotonic_ns() + PERIOD
    os.timerfd_settime_ns(timer, flags=os.TFD_TIMER_ABSTIME, initial=start, interval=PERIOD)
    due = -1
    while going():
        first = due + 1  # the oldest expiry is the one that was kept waiting longest
        due += int.from_bytes(os.read(timer, 8), sys.byteorder)
        late.observe((time.monotonic_ns() - start - first * PERIOD) / 1e6)
    os.close(timer)
    return late


def main() -> None:
    end = time.monotonic() + float(sys.argv[1])
    late = tick(lambda: time.monotonic() < end)
    print(json.dumps([round(late.quantile(q), 2) for q in (0.5, 0.99, 0.999, 1.0)]))


if __name__ == "__main__":
    main()
