"""Where a thread is; for the `watch` thread.

The stack of one other thread is had without stopping the world: faulthandler's handler runs in C
on the thread that gets the signal, even in the middle of a long C call, and writes its own stack
only. `Alarm` lets the kernel send that signal to the calling thread itself, when it does not come
round in time.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import struct
import threading
import time
from functools import cache

_HEAD = "Stack (most recent call first):"
_ENDS = (b" in _bootstrap\n", b"  ...\n")  # how faulthandler ends what a Thread was doing
_SIGEV_THREAD_ID = 4


class Stacks:
    """Asks threads for their stacks. `stacks()` is the only one; used by one thread."""

    SIGNAL = signal.SIGRTMIN  # no use of it is known; the default action would end the process
    MORE_MS = 10  # for more, after bytes that do not look like the end

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ready = select.poll()
        self._ready.register(self._read, select.POLLIN)
        faulthandler.register(self.SIGNAL, file=self._write, all_threads=False, chain=False)

    def of(self, thread: threading.Thread, wait_ms: int) -> str:
        """As text, most recent call first. Empty when the thread does not answer in time."""
        if thread.ident is None:
            return ""
        self.written()  # a late answer to an earlier question
        try:
            signal.pthread_kill(thread.ident, self.SIGNAL)
        except ProcessLookupError:
            return ""
        return self._drain(wait_ms)

    def written(self) -> str:
        """The last stack that somebody wrote unasked; see `Alarm`."""
        return self._drain(0)

    def _drain(self, wait_ms: int) -> str:
        text = b""
        while self._ready.poll(wait_ms):
            text += os.read(self._read, 65_536)
            wait_ms = 0 if text.endswith(_ENDS) else min(wait_ms, self.MORE_MS)
        _, head, last = text.decode("utf-8", "backslashreplace").rpartition(_HEAD)
        return (head + last).rstrip()


@cache
def stacks() -> Stacks:
    """Made once: a signal may still be on its way when its handler would be taken back."""
    return Stacks()


class Alarm:
    """Writes the stack of the thread that made it, unless that thread puts it off in time.

    A timer of the kernel's sends the signal to this one thread: Python's own timers know only
    processes. Where there is no such timer, `put_off` does nothing.
    """

    def __init__(self) -> None:
        stacks()  # its handler comes first
        self._libc = ctypes.CDLL(None)
        self._timer: ctypes.c_void_p | None = ctypes.c_void_p()
        # struct sigevent: the value, the signal, how, to which thread; 64 bytes
        event = struct.pack(
            "=QiiI", 0, Stacks.SIGNAL, _SIGEV_THREAD_ID, threading.get_native_id()
        ).ljust(64, b"\0")
        try:
            made = self._libc.timer_create(time.CLOCK_MONOTONIC, event, ctypes.byref(self._timer))
        except AttributeError:
            made = -1
        if made != 0:
            self._timer = None

    def put_off(self, seconds: float) -> None:
        """It goes off so long from now; 0: never. Only once for each call of this."""
        if self._timer is not None:
            whole, part = divmod(int(seconds * 1e9), 1_000_000_000)
            self._libc.timer_settime(self._timer, 0, struct.pack("=qqqq", 0, 0, whole, part), None)

    def close(self) -> None:
        """Take it away."""
        if self._timer is not None:
            self._libc.timer_delete(self._timer)
            self._timer = None
