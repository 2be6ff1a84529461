"""Thread `watch`: looks at how the others do, and writes the metrics page.

    wakes on     one second gone by; fifty times in it, to see short stalls (stalls.py)
    alone owns   the garbage collector's policy; the process's own metrics
    reads        each stage's beat; whether the GIL is on; every source of samples
    writes       the metrics page, one reference store; a log record for what is wrong

A stage is stalled when it was woken a second ago and its loop has not turned since. Its stack
is asked of the stage's own thread, by a signal: `sys._current_frames` and faulthandler's dump of
all threads stop the world, which waits for exactly the thread that does not come back, and
would make one stage's stall everybody's.

The garbage collector stops every thread while it scans the whole heap. So the automatic one is
off; it runs from here when nobody is on the line, and during calls only when memory has grown
by more than leaking cycles could be left to.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..observe.histogram import LATENESS_MS, Histogram
from ..observe.prometheus import Sample, render
from . import logs
from .stalls import LOOK_SECONDS, Stage, Stalls, stacks, waited_ns
from .wake import Inbox

PERIOD = 1.0
"""Seconds between two full looks."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_log = logs.logger("watch")


class Watch:
    """The thread's body and what it measures.

    Args:
        stages: the threads to watch.
        sources: called once a second, on this thread, for what goes onto the page.
        collector: the garbage collector's policy.
        gil_sample: told whether the GIL is on and the time (time.monotonic, s); what it
            returns, unless None, goes to `gil_changed`.
        state: what else the report of a stall should say.
        each_second: called at each full look, with its time.
        publish: given the page of this process, returns the one to be shown.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        sources: Sequence[Callable[[], Iterable[Sample]]],
        collector: Collector,
        gil_sample: Callable[[bool, float], object | None],
        gil_changed: Callable[[object], None],
        state: Callable[[], Mapping[str, object]] = dict,
        each_second: Callable[[float], None] = lambda now: None,
        publish: Callable[[bytes], bytes] = lambda page: page,
    ) -> None:
        self.page = b""
        """The metrics page as of the last look. Any thread may read the attribute."""
        self._sources = [*sources, self._own_samples]
        self._collector = collector
        self._heart = _Heartbeats(stages)
        self._gil_sample = gil_sample
        self._gil_changed = gil_changed
        self._each_second = each_second
        self._publish = publish
        self._inbox = Inbox("watch")
        self._stopping = False
        self._process = read_process()
        self._stalls = Stalls(stages, state)

    def run(self) -> None:
        """Look until `stop`."""
        due = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            if now >= due:
                self.look(now)
                due = now + PERIOD
            self._stalls.look(time.monotonic_ns())
            self._inbox.wait(LOOK_SECONDS)

    def stop(self) -> None:
        """Any thread: `run` returns soon."""
        self._stopping = True
        self._inbox.wake()

    def close(self) -> None:
        """After the thread has been joined."""
        self._inbox.close()

    def look(self, now: float) -> None:
        """One turn of the loop. `now` is time.monotonic, in seconds."""
        self._heart.look(now)
        self._stalls.settle()
        change = self._gil_sample(sys._is_gil_enabled(), now)
        if change is not None:
            self._gil_changed(change)
        self._process = read_process()
        self._collector.look(now, self._process.resident)
        self._each_second(now)
        page = render(sample for source in self._sources for sample in source())
        self.page = self._publish(page)

    def _own_samples(self) -> Iterable[Sample]:
        process = self._process
        gauges = (
            ("threadline_process_resident_bytes", "Resident memory.", process.resident),
            ("threadline_process_fds", "Open file descriptors.", process.fds),
            ("threadline_process_threads", "Threads, native ones included.", process.threads),
            ("threadline_gil_enabled", "1 while the GIL is on.", sys._is_gil_enabled()),
        )
        for name, text, value in gauges:
            yield Sample(name, text, "gauge", {}, float(value))
        text = "Log records lost because a thread logged faster than stderr took them."
        yield Sample("threadline_log_dropped_total", text, "counter", {}, logs.dropped())
        yield from self._heart.samples()
        yield from self._stalls.samples()
        yield from self._collector.samples()


class _Heartbeats:
    """Which stages turn their loops."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._turns = [-1] * len(stages)
        self._stalled_since: list[float | None] = [None] * len(stages)
        self._stalls = [0] * len(stages)
        self._waited = [0] * len(stages)  # ns for a core, in each thread's life
        self._looked = 0.0

    def look(self, now: float) -> None:
        since, self._looked = self._looked, now
        # A stage gets a verdict only when it had its second: not when this thread is early, and
        # not when the whole process was suspended and this thread is the first to go on.
        fair = PERIOD * 0.9 <= now - since <= PERIOD * 3
        for i, stage in enumerate(self._stages):
            turns = stage.beat()
            if turns != self._turns[i]:
                self._turns[i] = turns
                self._goes_on(i, now)
            elif fair and self._stalled_since[i] is None and not self._starved(i):
                self._stalls[i] += 1
                self._stalled_since[i] = since
                self._report(stage)
            self._waited[i] = waited_ns(stage.thread)
            stage.wake()

    def _starved(self, i: int) -> bool:
        """It had no core for most of its second: that is nobody's defect."""
        waited = waited_ns(self._stages[i].thread) - self._waited[i]
        return waited > PERIOD * 1e9 / 2

    def _report(self, stage: Stage) -> None:
        if not stage.thread.is_alive():
            _log.error("stage is gone", stage=stage.name)
            return
        _log.warning("stage is stalled", stage=stage.name, stack=stacks().of(stage.thread))

    def _goes_on(self, i: int, now: float) -> None:
        since = self._stalled_since[i]
        if since is None:
            return
        self._stalled_since[i] = None
        _log.info("stage goes on", stage=self._stages[i].name, stalled_s=round(now - since, 1))

    def samples(self) -> Iterable[Sample]:
        for i, stage in enumerate(self._stages):
            labels = {"stage": stage.name}
            stalled = float(self._stalled_since[i] is not None)
            text = "1 while a stage that was woken does not turn its loop."
            yield Sample("threadline_stage_stalled", text, "gauge", labels, stalled)
            text = "How often that began."
            yield Sample("threadline_stage_stalls_total", text, "counter", labels, self._stalls[i])


class Collector:
    """When the garbage collector may stop the world.

    Args:
        live_calls: how many calls are on. Called on the watch thread.
        quiet_seconds: at least so long between two collections while no call is on.
        growth_bytes: resident memory may grow by this much during calls before a collection.

    Every pause is measured, also of collections somebody else asks for.
    """

    LONG_MS = 5.0
    """A pause from here on is logged: a quarter of a frame."""

    def __init__(
        self,
        live_calls: Callable[[], int],
        quiet_seconds: float = 10.0,
        growth_bytes: int = 256_000_000,
    ) -> None:
        self.pauses = Histogram(LATENESS_MS)  # written by whoever collects: one thread at a time
        self._live_calls = live_calls
        self._quiet = quiet_seconds
        self._growth = growth_bytes
        self._collected = 0.0
        self._resident = read_process().resident
        self._began = 0
        gc.callbacks.append(self._measure)

    def freeze_and_disable(self) -> None:
        """Once, after warm-up: never scan again what is alive now, collect only from here."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._resident = read_process().resident

    def look(self, now: float, resident: int) -> None:
        """Collect, if it is time to. `now` in seconds, `resident` in bytes."""
        idle = self._live_calls() == 0 and now - self._collected >= self._quiet
        if not (idle and gc.get_count()[0] > 0) and resident - self._resident < self._growth:
            return
        gc.collect()
        self._collected = now
        self._resident = read_process().resident

    def close(self) -> None:
        """Hand the policy back to Python (tests)."""
        gc.callbacks.remove(self._measure)
        gc.unfreeze()
        gc.enable()

    def samples(self) -> Iterable[Sample]:
        """For the metrics page."""
        text = "How long the garbage collector ran, with every thread stopped for most of it."
        yield Sample("threadline_gc_pause_seconds", text, "histogram", {}, self.pauses, 1e-3)

    def _measure(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic_ns()
            return
        ms = (time.monotonic_ns() - self._began) / 1e6
        self.pauses.observe(ms)
        if ms >= self.LONG_MS:
            _log.warning("long garbage collection", ms=round(ms, 1), collected=info["collected"])


@dataclass(frozen=True, slots=True)
class Process:
    """What the kernel says about this process. `resident` in bytes."""

    resident: int
    threads: int
    fds: int


def read_process() -> Process:
    """From /proc; proc(5) numbers the fields of `stat`."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()  # field 3 on: a name may hold anything
    return Process(
        resident=int(fields[24 - 3]) * _PAGE,
        threads=int(fields[20 - 3]),
        fds=len(os.listdir("/proc/self/fd")) - 1,  # less the one that lists
    )
