"""Thread `watch`: looks at how the others do, and writes the metrics page.

    wakes on     one second gone by; sixty times in it, to see short stalls (stalls.py)
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
import math
import os
import platform
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from ..observe.histogram import LATENESS_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, render
from . import logs
from .awake import core_times
from .stacks import stacks
from .stalls import LOOK_SECONDS, Stage, Stalls
from .wake import Inbox

PERIOD = 1.0
"""Seconds between two full looks."""

ANSWER_MS = 100
"""A stalled stage has so long to say where it is."""

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
        self._gil_sample = gil_sample
        self._gil_changed = gil_changed
        self._each_second = each_second
        self._publish = publish
        self._inbox = Inbox("watch")
        self._stopping = False
        self._process = read_process()
        self._build = build()

        def facts() -> Mapping[str, object]:
            return {**state(), "gc": collector.state()}

        self._heart = _Heartbeats(stages, facts)
        self._stalls = Stalls(stages, facts)

    def add(self, stage: Stage) -> None:
        """One more thread to watch, before `run`."""
        self._heart.add(stage)
        self._stalls.add(stage)

    def run(self) -> None:
        """Look until `stop`."""
        due = time.monotonic()
        inbox = self._inbox
        self._stalls.begin(
            Stage("watch", threading.current_thread(), lambda: 0, inbox.wake, inbox.awake)
        )
        while not self._stopping:
            self._stalls.look(time.monotonic_ns())
            now = time.monotonic()
            if now >= due:
                self.look(now)
                due = now + PERIOD
            inbox.wait(LOOK_SECONDS)
        self._stalls.end()

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
        change = self._gil_sample(sys._is_gil_enabled(), now)
        if change is not None:
            self._gil_changed(change)
        self._process = read_process()
        pauses, began = self._collector.pauses.count, time.monotonic_ns()
        with self._inbox.awake.longer(math.inf):  # a pause is measured for itself
            self._collector.look(now, self._process.resident)
        if self._collector.pauses.count != pauses:
            self._stalls.stood_still(began, time.monotonic_ns())
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
        text = "What runs here."
        yield gauge("threadline_build_info", text, 1.0, **self._build)
        text = "Log records lost because a thread logged faster than stderr took them."
        yield Sample("threadline_log_dropped_total", text, "counter", {}, logs.dropped())
        yield from self._heart.samples()
        yield from self._stalls.samples()
        yield from self._collector.samples()


@dataclass(slots=True)
class _Heart:
    """One stage's."""

    stage: Stage
    turns: int = -1
    since: float | None = None  # it has been stalled
    stalls: int = 0
    ran: int = 0  # ns on a core, in its thread's life
    waited: int = 0  # ns for one


class _Heartbeats:
    """Which stages turn their loops."""

    def __init__(self, stages: Sequence[Stage], facts: Callable[[], Mapping[str, object]]) -> None:
        self._hearts = [_Heart(stage) for stage in stages]
        self._facts = facts
        self._looked = 0.0

    def add(self, stage: Stage) -> None:
        self._hearts.append(_Heart(stage))

    def look(self, now: float) -> None:
        since, self._looked = self._looked, now
        # A stage gets a verdict only when it had its second: not when this thread is early, and
        # not when the whole process was suspended and this thread is the first to go on.
        fair = PERIOD * 0.9 <= now - since <= PERIOD * 3
        for heart in self._hearts:
            stage = heart.stage
            turns = stage.beat()
            heart.ran, waited = core_times(stage.thread)
            if turns != heart.turns:
                heart.turns = turns
                self._goes_on(heart, now)
            elif fair and heart.since is None and waited - heart.waited <= PERIOD * 1e9 / 2:
                # Else it had no core for most of its second: that is nobody's defect.
                heart.stalls += 1
                heart.since = since
                self._report(stage)
            heart.waited = waited
            stage.wake()

    def _report(self, stage: Stage) -> None:
        if not stage.thread.is_alive():
            _log.error("stage is gone", stage=stage.name)
            return
        stack = stacks().of(stage.thread, ANSWER_MS)
        _log.warning("stage is stalled", stage=stage.name, stack=stack, **self._facts())

    def _goes_on(self, heart: _Heart, now: float) -> None:
        since, heart.since = heart.since, None
        if since is not None:
            _log.info("stage goes on", stage=heart.stage.name, stalled_s=round(now - since, 1))

    def samples(self) -> Iterable[Sample]:
        for heart in self._hearts:
            name, stalled = heart.stage.name, float(heart.since is not None)
            text = "1 while a stage that was woken does not turn its loop."
            yield gauge("threadline_stage_stalled", text, stalled, stage=name)
            text = "Time on a core."
            yield counter("threadline_stage_cpu_seconds_total", text, heart.ran / 1e9, stage=name)
            text = "How often that began."
            yield counter("threadline_stage_stalls_total", text, heart.stalls, stage=name)


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
        self._began = time.monotonic_ns()
        self._last_ms = 0.0
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

    def state(self) -> Mapping[str, object]:
        """For the report of a stall."""
        return {
            "automatic": gc.isenabled(),
            "counts": list(gc.get_count()),
            "collections": self.pauses.count,
            "last_ms": round(self._last_ms, 1),
            "last_ago_s": round((time.monotonic_ns() - self._began) / 1e9, 1),
        }

    def samples(self) -> Iterable[Sample]:
        """For the metrics page."""
        text = "How long the garbage collector ran, with every thread stopped for most of it."
        yield Sample("threadline_gc_pause_seconds", text, "histogram", {}, self.pauses, 1e-3)

    def _measure(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic_ns()
            return
        ms = self._last_ms = (time.monotonic_ns() - self._began) / 1e6
        self.pauses.observe(ms)
        if ms >= self.LONG_MS:
            _log.warning("long garbage collection", ms=round(ms, 1), collected=info["collected"])


def build() -> Mapping[str, str]:
    """Our version, and the interpreter's."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    try:
        version = metadata.version("threadline")
    except metadata.PackageNotFoundError:
        version = "not installed"  # run from its source
    return {
        "version": version,
        "python": platform.python_version() + "t" * free,
    }


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
