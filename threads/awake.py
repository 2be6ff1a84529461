"""For how long a thread has been awake: told by the thread itself, read by `watch`.

A thread is awake from when it wakes until it sleeps again. `watch` looks only now and then; so a
stretch that took longer than it may is kept until the next such one, and none is missed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

LIMIT_MS = 40.0
"""Two frames: nothing on the media path takes as long."""

PULSE_MS = 30.0
"""An event loop is asked at `watch`'s next look only, up to 15 ms into a stall."""


class Stretch(NamedTuple):
    """One stretch that took too long, in monotonic ns; `limit`: what it might have taken. `ran` and
    `waited` are the thread's `core_times` at its end."""

    since: int
    until: int
    limit: float
    ran: int
    waited: int


class Awake:
    """Since when one thread has been awake. That thread writes, any may read.

    `since` in monotonic ns, 0 while it sleeps; `limit` in ns; `overlong`: the last stretch that
    took longer. Who reads both reads `limit` first.
    """

    __slots__ = ("limit", "overlong", "since")

    def __init__(self) -> None:
        self.since = 0
        self.limit = LIMIT_MS * 1e6
        self.overlong: Stretch | None = None

    def sleeps(self) -> None:
        """From here on, until `wakes`."""
        self._judge(time.monotonic_ns())
        self.since = 0

    def wakes(self) -> None:
        """From here on it is awake."""
        self.since = time.monotonic_ns()

    @contextmanager
    def longer(self, limit_ms: float) -> Iterator[None]:
        """A stretch of its own, that may take so long: a model's run, a user's function."""
        now = time.monotonic_ns()
        self._judge(now)
        self.limit = limit_ms * 1e6  # before `since`: nobody may hold the new one to the old limit
        self.since = now
        try:
            yield
        finally:
            now = time.monotonic_ns()
            self._judge(now)
            self.since = now  # and now after it
            self.limit = LIMIT_MS * 1e6

    def look(self, now: int) -> int:
        """Since when it has been awake, 0 while it sleeps. Any thread; as `Pulse.look`."""
        return self.since

    def _judge(self, now: int) -> None:
        if self.since and now - self.since > self.limit:
            self.overlong = Stretch(self.since, now, self.limit, *core_times())


class Pulse:
    """The same of an event loop, which does not say when it sleeps: a reader of its own, which
    only answers.

    `fileno` and `answer` are the loop's, `look` is the watch thread's, which asks by calling it.
    """

    __slots__ = ("_answered", "_asked", "_fd", "_since", "limit", "overlong")

    def __init__(self, limit_ms: float = PULSE_MS) -> None:
        self.limit = limit_ms * 1e6
        self.overlong: Stretch | None = None
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
        self._came_round(time.monotonic_ns())

    def _came_round(self, now: int) -> None:
        if now - self._since > self.limit:
            self.overlong = Stretch(self._since, now, self.limit, *core_times())
        self._answered += 1

    def look(self, now: int) -> int:
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


def core_times(thread: threading.Thread | None = None) -> tuple[int, int]:
    """How long a thread has run on a core, and has been runnable without one, in its life, ns.

    Of the calling one, unless another is named. Zeros when it is gone, or the kernel does not
    count. A wait that goes on is not in the sum yet. proc(5), schedstat: run time, waiting time,
    slices.
    """
    task = "thread-self" if thread is None else f"self/task/{thread.native_id}"
    try:
        with open(f"/proc/{task}/schedstat", "rb") as stat:
            ran, waited, _ = map(int, stat.read().split())
            return ran, waited
    except OSError, ValueError:
        return 0, 0
