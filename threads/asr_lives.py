"""One worker of the recogniser through all its lives, seen by its owner: part of the `asr` thread.

A life begins with `start`, as a child process or as a thread called `asr-decode`, and ends with
`forget`; in between there are a socket to it and, of a process, what it prints. Who gets which job,
and what a death means for it, is decided in asr_process.py.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .asr_worker import MAX_MESSAGE, recognise_forever
from .gil import Placement

BACKOFF_SECONDS = 0.1, 5.0  # before a dead worker is replaced: first, and longest
BURIAL_SECONDS = 0.5  # how long a killed process is waited for on the spot
TAIL = 4_096  # bytes kept of what a child prints


@dataclass(slots=True)
class Job:
    """One utterance to decode."""

    job: int
    room: int
    length: int
    cut: bool
    deadline: float
    words: bool
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all workers of a recogniser have in common: what makes their decoder, the descriptor of
    the arena, and the epoll set in which the owner waits for them."""

    decoder: str
    options: dict[str, object]
    arena: int
    poll: select.epoll


@dataclass(slots=True)
class Worker:
    """See the module."""

    place: Workplace
    state: Literal["down", "starting", "idle", "busy", "stuck"] = "down"
    due: float = 0.0  # down: when to start; starting: when to give up
    backoff: float = BACKOFF_SECONDS[0]
    jobs: list[Job] = field(default_factory=list)  # that it is at, together
    owed: int = 0  # answers that will come yet
    sock: socket.socket | None = None
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None
    output: int = -1  # read end of a child's stdout and stderr
    tail: bytearray = field(default_factory=bytearray)

    @property
    def pid(self) -> int | None:
        """None: a thread, or not alive."""
        return self.process.pid if self.process else None

    @property
    def said(self) -> str:
        """The end of what a child printed: a traceback becomes one field of one record."""
        return self.tail.decode(errors="replace").strip()

    def start(self, placement: Placement) -> None:
        """Begin a life. Raises OSError or RuntimeError when the system has no process, thread or
        descriptor left."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.place.poll.register(self.sock, select.EPOLLIN)
        if placement == "thread":
            self._start_thread(theirs)
        else:
            with theirs:
                self._start_process(theirs.fileno())

    def _start_thread(self, sock: socket.socket) -> None:
        self.thread = threading.Thread(
            target=recognise_forever,
            args=(sock, self.place.arena, self.place.decoder, self.place.options),
            name="asr-decode",
            daemon=True,
        )
        self.thread.start()

    def _start_process(self, sock: int) -> None:
        order = {
            "decoder": self.place.decoder,
            "options": self.place.options,
            "sock": sock,
            "arena": self.place.arena,
            "parent": os.getpid(),
        }
        # The model's extension would turn the GIL on anyway, with a warning.
        free = sysconfig.get_config_var("Py_GIL_DISABLED")
        environ = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
        environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.output, said = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(said, True)
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *(("-X", "gil=1") if free else ()),
                    *("-P", "-m", f"{__package__}.asr_worker", json.dumps(order)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=(sock, self.place.arena),
                env=environ,
                process_group=0,  # a Ctrl-C in the terminal is for the server, which drains
            )
        finally:
            os.close(said)
        self.place.poll.register(self.output, select.EPOLLIN)

    def send(self, message: Mapping[str, object]) -> None:
        """Raises OSError when it is dead and nobody has looked yet."""
        assert self.sock, "a worker without a socket was taken for idle"
        self.sock.send(json.dumps(message).encode())

    def receive(self) -> bytes | None:
        """Its next message; None: there is none yet; empty: it has ended."""
        self.read_output()
        assert self.sock, "only the living are heard"
        try:
            return self.sock.recv(MAX_MESSAGE)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # ended with a job unread
            return b""

    def read_output(self) -> None:
        """Keep the last of what a child printed; a full pipe would stop it."""
        while self.output >= 0:
            try:
                piece = os.read(self.output, 65_536)
            except BlockingIOError:
                return
            if not piece:
                self._close_output()
            self.tail += piece
            del self.tail[:-TAIL]

    def kill(self) -> bool:
        """End its process, if it is one. False when the system has not let go of it yet."""
        if self.process:
            self.process.kill()
            try:
                self.process.wait(BURIAL_SECONDS)
            except subprocess.TimeoutExpired:
                return False
        return True

    def forget(self) -> None:
        """End this life. A process that was not killed, and a thread, end with their socket."""
        if self.sock:
            self.sock.close()
        self._close_output()
        self.sock = self.process = self.thread = None
        self.state, self.jobs, self.owed = "down", [], 0
        self.tail.clear()

    def _close_output(self) -> None:
        if self.output >= 0:
            os.close(self.output)  # which takes it out of the epoll set too
            self.output = -1
