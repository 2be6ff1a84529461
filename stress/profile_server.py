"""`threadline serve` whose threads can be sampled: started by profile.py, with serve's flags.

    python -m stress.profile_server FOLDER serve FLAGS...

The first SIGUSR1 begins to measure what each thread spends, the second ends that and begins to
sample, the third ends that: who is sampled spends more. Each thread has a counter of its own CPU
time in the kernel (perf_event_open), which sends it a signal after every three milliseconds of it;
faulthandler's handler then writes that thread's stack, from C, into that thread's file. So nothing
stops the world, a thread that sleeps is not sampled, and what is counted is where CPU time goes,
native code and the kernel included (as part of the line of Python that called them). A timer on a
thread's CPU clock would not do: the kernel looks at those with its tick, which keeps time with our
20 ms.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import json
import os
import platform
import signal
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from threadline.cli import main as serve

EVERY_NS = 2_989_000  # in step with nothing of ours
_FIRST = signal.SIGRTMIN + 1  # the watch thread's own question is SIGRTMIN
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # numbers of system calls
# struct perf_event_attr: PERF_TYPE_SOFTWARE, its size, PERF_COUNT_SW_TASK_CLOCK, the period
_ATTRIBUTES = struct.pack("=IIQQ", 1, 128, 1, EVERY_NS).ljust(128, b"\0")
_CLOSE_ON_EXEC = 8
_F_SETSIG, _F_SETOWN_EX, _F_OWNER_TID = 10, 15, 0


class Sampler:
    """Samples every thread of this process that Python knows; on the main thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._counters: list[int] = []
        self._told: dict[str, object] = {}
        self._threads: list[threading.Thread] = []
        self._before: dict[str, float] = {}
        self._files: dict[str, int] = {}
        self._began = 0.0
        self._phases = iter((self._measure, self._sample, self._end))

    def next(self, number: int = 0, frame: FrameType | None = None) -> None:
        """A signal handler."""
        phase = next(self._phases, None)
        if phase is not None:
            phase()

    def _measure(self) -> None:
        self._threads = [one for one in threading.enumerate() if one.ident is not None]
        self._began = time.monotonic()
        self._before = self._spent()

    def _spent(self) -> dict[str, float]:
        """CPU seconds of each thread; not of one that has ended, as those of uvloop's pool do."""
        found = {}
        for thread in self._threads:
            assert thread.ident is not None, "only these were taken"
            with suppress(OSError, ProcessLookupError):
                found[thread.name] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        return found

    def _sample(self) -> None:
        seconds = time.monotonic() - self._began
        cpu = {name: spent - self._before[name] for name, spent in self._spent().items()}
        self._told = {"seconds": seconds, "cpu": cpu}
        alive = [thread for thread in self._threads if thread.name in cpu]
        for number, thread in enumerate(alive[: signal.SIGRTMAX - _FIRST + 1], _FIRST):
            # In memory: a stack is a hundred writes.
            file = self._files[thread.name] = os.memfd_create(thread.name)
            faulthandler.register(number, file=file, all_threads=False, chain=False)
            self._count(number, thread.native_id or 0)

    def _count(self, number: int, thread: int) -> None:
        syscall = _PERF_EVENT_OPEN.get(platform.machine(), -1)
        fd = self._libc.syscall(syscall, _ATTRIBUTES, thread, -1, -1, _CLOSE_ON_EXEC)
        if fd < 0:
            why = os.strerror(ctypes.get_errno())
            raise OSError(f"The kernel counts no CPU time for us ({why}): see perf_event_paranoid.")
        fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, thread))
        fcntl.fcntl(fd, _F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
        self._counters.append(fd)

    def _end(self) -> None:
        for fd in self._counters:
            os.close(fd)
        for name, file in self._files.items():  # left open: a last signal may be on its way
            os.lseek(file, 0, os.SEEK_SET)
            with open(file, "rb", closefd=False) as stacks:
                (self._folder / f"{name}.stacks").write_bytes(stacks.read())
        told = self._folder / "told.json"
        told.with_suffix(".new").write_text(json.dumps(self._told))
        told.with_suffix(".new").rename(told)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, Sampler(Path(sys.argv[1])).next)
    sys.exit(serve(sys.argv[2:]))
