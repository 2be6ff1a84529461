"""Short stalls: a stage that is awake for longer than its turns take, and where it was then.

Part of the `watch` thread, which looks fifty times a second. A stage tells since when it has been
awake (`Inbox.awake`, or a `Pulse` on an event loop); one that is so for longer than its bound is
asked for its stack at once, and when it sleeps again the stall is reported: how long, where, how
much of it the thread only waited for a core (from /proc), what lay in the rings, and whether the
garbage collector was at work. A stage that mostly waited for a core has no defect: that is
counted, and said more quietly.

A look that is itself late proves nothing about others: then the whole process stood still.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..observe.prometheus import Sample
from . import logs

LOOK_SECONDS = 0.02
LIMIT_MS = 40.0
"""Two frames: nothing on the media path takes as long."""
_FAIR_MS = 35.0  # between two looks; above that it was the machine
_log = logs.logger("watch")


@dataclass(frozen=True, slots=True)
class Stage:
    """One thread to watch.

    `beat` counts the turns of its loop and does not wrap, or a stage of 256 turns a second would
    seem to stand still. `wake` makes the loop turn even when there is nothing to do. `awake`, told
    the time in monotonic ns: since when it has been, 0 while it sleeps. `limit_ms`: what one of its
    turns may take.
    """

    name: str
    thread: threading.Thread
    beat: Callable[[], int]
    wake: Callable[[], None]
    awake: Callable[[int], int] = lambda now: 0
    limit_ms: float = LIMIT_MS


@dataclass(slots=True)
class _Episode:
    """One stretch in which a stage was awake for too long."""

    since: int  # ns
    seen: int  # ns, the last look that found it so
    stack: str
    waited: int  # ns for a core, in the thread's life until it was last found well
    fields: dict[str, object]


class Stalls:
    """Watches some stages; the watch thread's alone.

    `state` is called when a stall is found, for what else the report should say.
    """

    def __init__(self, stages: Sequence[Stage], state: Callable[[], Mapping[str, object]]) -> None:
        self._stages = stages
        self._state = state
        self._episodes: list[_Episode | None] = [None] * len(stages)
        self._waited = [0] * len(stages)  # of each thread, when it was last found well
        self._looked = 0
        self.stalls = [0] * len(stages)
        self.starved = [0] * len(stages)
        stacks()  # the signal handler must be there before the first stall

    def look(self, now: int) -> None:
        """One look; `now` in monotonic ns."""
        fair = (now - self._looked) / 1e6 <= _FAIR_MS
        self._looked = now
        for i, stage in enumerate(self._stages):
            since, episode = stage.awake(now), self._episodes[i]
            if episode is not None and since != episode.since:
                self._report(i, stage, episode)
                episode = self._episodes[i] = None
            if episode is not None:
                episode.seen = now
            elif since and fair and (now - since) / 1e6 > stage.limit_ms:
                self._episodes[i] = self._found(i, stage, since, now)

    def _found(self, i: int, stage: Stage, since: int, now: int) -> _Episode:
        fields = {**self._state(), "gc": list(gc.get_count())}
        stack = stacks().of(stage.thread)
        return _Episode(since, now, stack, self._waited[i], fields)

    def _report(self, i: int, stage: Stage, episode: _Episode) -> None:
        took = (episode.seen - episode.since) / 1e6
        # Only now: a wait that goes on is not in the kernel's sum yet.
        self._waited[i] = waited_ns(stage.thread)
        waited = min(took, (self._waited[i] - episode.waited) / 1e6)
        starved = waited > took / 2
        self.starved[i] += starved
        self.stalls[i] += not starved
        (_log.info if starved else _log.warning)(
            "no core for a stage" if starved else "stall",
            stage=stage.name,
            ms=round(took, 1),
            waited_for_core_ms=round(waited, 1),
            stack=episode.stack,
            **episode.fields,
        )

    def settle(self) -> None:
        """Once a second: note how long each thread has waited for a core in its life."""
        for i, stage in enumerate(self._stages):
            if self._episodes[i] is None:
                self._waited[i] = waited_ns(stage.thread)

    def samples(self) -> Iterable[Sample]:
        """For the metrics page."""
        for i, stage in enumerate(self._stages):
            labels = {"stage": stage.name}
            text = "Times a stage was busy for longer than its turns take."
            yield Sample("threadline_stage_slow_total", text, "counter", labels, self.stalls[i])
            text = "Times it was late because it had no core."
            yield Sample("threadline_stage_starved_total", text, "counter", labels, self.starved[i])


def waited_ns(thread: threading.Thread) -> int:
    """How long a thread has been runnable without a core, in its life. 0 when it is gone, or the
    kernel does not count. proc(5), schedstat: run time, waiting time, slices."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/schedstat", "rb") as stat:
            return int(stat.read().split()[1])
    except OSError, IndexError:
        return 0


class Pulse:
    """Tells whether an event loop turns: a reader of its own, which only answers.

    `fileno` and `answer` are the loop's; `awake` is the watch thread's, which asks by calling it.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._answered = 0
        self._asked = 0
        self._since = 0

    def fileno(self) -> int:
        """What the loop reads."""
        return self._fd

    def answer(self) -> None:
        """On the loop: it turns."""
        os.eventfd_read(self._fd)
        self._answered += 1

    def awake(self, now: int) -> int:
        """Since when the loop has not come round, ns; 0 while it does. Asks anew."""
        if self._answered == self._asked:
            self._since = now
            self._asked += 1
            os.eventfd_write(self._fd, 1)
            return 0
        return self._since

    def close(self) -> None:
        """After both threads have ended."""
        os.close(self._fd)


class _Stacks:
    """The stack of one other thread, without stopping the world.

    faulthandler's handler runs in C on the thread that gets the signal, even in the middle of a
    long C call, and writes its own stack only.
    """

    SIGNAL = signal.SIGRTMIN  # no use of it is known; the default action would end the process
    WAIT_MS = 100  # for the first bytes
    MORE_MS = 10  # for more after them

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ready = select.poll()
        self._ready.register(self._read, select.POLLIN)
        faulthandler.register(self.SIGNAL, file=self._write, all_threads=False, chain=False)

    def of(self, thread: threading.Thread) -> str:
        """As text, most recent call first. Empty when the thread does not answer in time."""
        if thread.ident is None:
            return ""
        self._drain(0)  # a late answer to an earlier question
        try:
            signal.pthread_kill(thread.ident, self.SIGNAL)
        except ProcessLookupError:
            return ""
        return self._drain(self.WAIT_MS)

    def _drain(self, wait_ms: int) -> str:
        text = b""
        while self._ready.poll(wait_ms):
            text += os.read(self._read, 65_536)
            wait_ms = min(wait_ms, self.MORE_MS)
        return text.decode("utf-8", "backslashreplace").rstrip()


@cache
def stacks() -> _Stacks:
    """Made once: a signal may still be on its way when its handler would be taken back."""
    return _Stacks()
