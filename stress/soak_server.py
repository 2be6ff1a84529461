"""The server of a soak: started in the cascade, and looked at from outside once a second."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from threadline.threads.child_server import ChildServer

from .bench.phone import serving, value
from .bench.vendors import CASCADE, Latencies, vendors
from .soak_page import Look, Run

HEARD, ANSWER = "Yes, please.", "Sure, I can do that. And for which day would you like it?"
ALARMS = ("stall", "stage is stalled", "no core for a stage")


@contextmanager
def cascade(
    latencies: Latencies, max_calls: int, settings: Sequence[str]
) -> Iterator[tuple[ChildServer, Path]]:
    flags = [part for one in settings for part in ("--set", one)]
    with vendors(HEARD, ANSWER, latencies) as environ, patch.dict(os.environ, environ):
        fixed = ("--max-calls", str(max_calls), "--set", "endpoint.mode=silence")
        with serving("threadline", "serve", *CASCADE, *fixed, *flags) as serving_now:
            yield serving_now


class Looks:
    """Looks at the server once a second, on a thread of its own, until `end`."""

    REST = 12.0  # s until the watch thread has collected, once nobody is on the line

    def __init__(self, server: ChildServer) -> None:
        self.taken: list[Look] = []
        self.done = 0  # calls that are over; written by who counts them
        self._server = server
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="looks")

    def __enter__(self) -> Looks:
        self.taken.append(self._look())  # at rest
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def rest(self) -> None:
        """Look on while nobody is on the line."""
        self._over.wait(self.REST)

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def _keep_looking(self) -> None:
        while not self._over.wait(1.0):
            self.taken.append(self._look())

    def _look(self) -> Look:
        pid, page = self._server.pid, self._server.metrics()
        pages, ticks = (Path(f"/proc/{pid}/{name}").read_text() for name in ("statm", "stat"))
        after = ticks.rpartition(")")[2].split()  # from proc(5)'s field 3 on
        return Look(
            at=round(self.seconds, 1),
            done=self.done,
            rss_mb=round(int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 2),
            threads=int(after[17]),
            fds=len(os.listdir(f"/proc/{pid}/fd")),
            slots=int(value(page, "threadline_calls")),
            collections=int(value(page, "threadline_gc_pause_seconds_count")),
            collecting_s=value(page, "threadline_gc_pause_seconds_sum"),
            cpu_s=(int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK"),
        )


def result(kind: str, at_once: int, looks: Looks, counts: Counter[str], log: Path) -> Run:
    """What it came to, with what the server's log says."""
    logged: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    for line in log.read_text("utf-8").splitlines():
        record = json.loads(line)
        level, event = record["level"], record["event"]
        logged[f"{level} {event!r}" if level == "warning" else level] += 1
        if event in ALARMS:
            if level != "info":
                print(line, file=sys.stderr)
            alarms[f"{event}: {record['stage']}"] += 1
        elif level == "error":
            alarms[f"error: {event}"] += 1
    return Run(kind, at_once, looks.taken, dict(counts), dict(logged), dict(alarms))
