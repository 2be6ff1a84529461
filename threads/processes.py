"""Several server processes behind one port: started, watched, replaced, ended together.

Runs on the main thread of a parent that answers no call. It owns the listening socket and the
shared page (siblings.py), and hands both to its children; each is a whole server with threads
of its own. A process that dies takes its own calls with it and no other; it is replaced, with a
longer pause each time it dies young. SIGTERM and Ctrl-C are passed on: all drain at once. The
exit code is the gravest of theirs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import Exit
from . import logs
from .siblings import Siblings
from .wake import Inbox

log = logs.logger("processes")

PAUSE_SECONDS = 0.2, 30.0  # before a dead process is replaced: first, and longest
YOUNG_SECONDS = 30.0  # one that lived for less died young
END_SECONDS = 15.0  # after the drain's cap, before a process is killed
_GRAVITY = (Exit.OK, Exit.DRAIN, Exit.FAILED, Exit.ADDRESS, Exit.MODEL, Exit.GIL, Exit.USAGE)


@dataclass(slots=True)
class _Child:
    """One row: the process in it, through all its lives."""

    row: int
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    due: float = 0.0  # when to start the next one
    pause: float = PAUSE_SECONDS[0]
    ended: Exit | None = None


class Processes:
    """`run` starts them and returns when all have ended.

    Args:
        command: of one server; what it inherits is named by `--inherited` at its end.
        listener: bound and listening.
        count: processes.
        drain_seconds: what a child may take to end after it was asked to.
    """

    def __init__(
        self, command: Sequence[str], listener: socket.socket, count: int, drain_seconds: float
    ) -> None:
        self._command = list(command)
        self._listener = listener
        self._drain_seconds = drain_seconds
        self._fd = Siblings.make(count)
        self.siblings = Siblings(self._fd, count, 0)
        self._children = [_Child(row) for row in range(count)]
        self._bell = Inbox("processes")
        self._asked = 0
        self.restarts = 0

    def run(self) -> Exit:
        """Until asked to stop, and all have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ask())
        signal.signal(signal.SIGCHLD, lambda *_: self._bell.wake())
        passed, deadline = 0, float("inf")
        while True:
            now = time.monotonic()
            if passed < self._asked:
                passed = self._asked
                deadline = now + self._drain_seconds + END_SECONDS
                self._signal(signal.SIGTERM)
            if now > deadline:
                self._signal(signal.SIGKILL)
            for child in self._children:
                self._look(child, now)
            if all(child.process is None for child in self._children) and (
                self._asked or self._hopeless()
            ):
                return self._verdict()
            self._bell.wait(0.2)

    def _ask(self) -> None:
        self._asked += 1
        self._bell.wake()

    def _signal(self, number: int) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)

    def _look(self, child: _Child, now: float) -> None:
        if child.process is not None and child.process.poll() is not None:
            self._ended(child, child.process.returncode, now)
        if child.process is None and not self._asked and not self._hopeless() and now >= child.due:
            self._start(child, now)

    def _start(self, child: _Child, now: float) -> None:
        fds = self._listener.fileno(), self._fd
        inherited = f"{fds[0]},{fds[1]},{child.row},{len(self._children)}"
        child.process = subprocess.Popen(
            [*self._command, "--inherited", inherited],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            process_group=0,  # a Ctrl-C in the terminal is for us, who pass it on
        )
        child.born, child.ended = now, None
        log.info("process started", process=child.row, pid=child.process.pid)

    def _ended(self, child: _Child, status: int, now: float) -> None:
        child.process = None
        self.siblings.clear(child.row)
        try:
            child.ended = Exit(status)
        except ValueError:  # a signal
            child.ended = Exit.CRASH
        if self._asked:
            if status == -signal.SIGTERM:  # it was asked before it had begun: no call is lost
                child.ended = Exit.OK
            return
        young = now - child.born < YOUNG_SECONDS
        child.pause = min(child.pause * 2, PAUSE_SECONDS[1]) if young else PAUSE_SECONDS[0]
        child.due = now + child.pause
        self.restarts += 1
        log.error(
            "process ended", process=child.row, status=status, again_in_s=round(child.pause, 1)
        )

    def _hopeless(self) -> bool:
        """One could not start for a reason that a restart cannot mend: the others would not."""
        return any(
            child.ended in (Exit.USAGE, Exit.MODEL, Exit.GIL, Exit.ADDRESS)
            for child in self._children
        )

    def _verdict(self) -> Exit:
        ends = [child.ended for child in self._children if child.ended is not None]
        if Exit.CRASH in ends:
            return Exit.CRASH
        return max(ends, key=_GRAVITY.index, default=Exit.OK)

    def close(self) -> None:
        """After `run`."""
        self._bell.close()
        self.siblings.close()
        os.close(self._fd)


def command(argv: Sequence[str]) -> list[str]:
    """Of one server, with the arguments that the parent was given."""
    return [sys.executable, "-m", "threadline", *argv]
