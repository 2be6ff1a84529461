"""The server ends within its bound, from every state, and leaves nothing behind.

The whole server (whole.py), ended again and again: in this process, by `close`, with its calls
and its recogniser in some state; and as a process of its own, by one or two signals at any moment
from its start on.

ACCEPTABLE  calls that are cut off; a process that a signal ends before it listens.
FORBIDDEN   a thread that does not end within its three seconds; a thread, descriptor or recogniser
            process that is left; a caller whose connection is not closed; an exit status that is
            not one of those a signal leads to; an end later than the cap on draining and three
            seconds for each thread.

Perturbed   anything of perturb.py but SIGSTOP, which would be counted as the server's own time.
Seed        draws the state, when the end comes within it, and the disturbances.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threadline.errors import Exit
from threadline.threads.asr_worker import Decoder
from threadline.threads.server import Server

from ..bout import Bout
from ..perturb import disturbed
from ..whole import Caller, Heard, kill, make, recognisers

WHAT = "ends in time from every state, nothing left"
LIMIT = 300.0

ROUNDS, PROCESSES = 24, 6
CALLS = 6
STARTS = 2.5  # s a process may have had when it is told to end
BOUND = 1.0 + 10 * 3.0 + 5.0  # s: draining, three for each thread, and the interpreter's own end
WITHIN = ("switches", "squeeze", "stops", "collections", "churn", "imports")


class Stuck(Decoder):
    """A decoder that never comes back."""

    def decode(self, audio: NDArray[np.float32], /) -> Heard:
        time.sleep(1000)
        return Heard("")


class Slow:
    """A decoder that takes long to load."""

    def __init__(self) -> None:
        time.sleep(1000)


def run(bout: Bout) -> None:
    states = _States(bout)
    names = [state.__name__ for state in states.all]
    warm = make(1)  # what a process makes once and keeps: it is not counted
    warm.start()
    warm.close()
    for number in range(bout.many(ROUNDS)):
        state = states.all[number % len(states.all)]
        bout.setting = names[number % len(states.all)]
        with disturbed(bout, WITHIN, most=2):
            _close(bout, states, state)
        bout.count(closed=1)
    for _ in range(bout.many(PROCESSES)):
        _signal(bout)
        bout.count(signalled=1)


def _close(bout: Bout, states: _States, state: Callable[[Server], None]) -> None:
    before = _mine()
    decoder = states.decoders.get(state, "stress.whole:ByEar")
    # Twice as many slots as callers: those of the last round may still be leaving.
    server = make(2 * CALLS, decoder=decoder)
    server.start()
    states.callers = []
    try:
        state(server)
        time.sleep(bout.rng.random() * 0.05)
        children = recognisers(os.getpid())
        began = time.monotonic()
        bout.expect(server.close(), "a thread did not end within its bound")
        took = time.monotonic() - began
        bout.expect(took < BOUND, f"it took {took:.1f} s")
        for caller in states.callers:
            caller.sock.settimeout(10)
            bout.expect(_closed(caller.sock), f"caller {caller.number} is still connected")
    finally:
        for caller in states.callers:
            caller.close()
    gone = [pid for pid in children if Path(f"/proc/{pid}/stat").exists()]
    bout.expect(not gone, f"recogniser processes {gone} are left")
    bout.until(lambda: _mine()[0] <= before[0], f"threads are left: {_mine()[0] - before[0]}", 10)
    fds = _mine()[1]
    bout.expect(fds <= before[1], f"descriptors are left: {_named(fds - before[1])}")
    bout.count(callers=len(states.callers))


def _closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def _mine() -> tuple[set[str], set[int]]:
    """Threads by name, without those that disturb; descriptors but for sockets of the past."""
    ours = {"io-calls", "vad", "asr", "reply", "tts", "pacer", "watch", "io-vendors"}
    threads = {thread.name for thread in threading.enumerate()} & ours
    fds = set()
    for fd in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{fd}") and int(fd) > 2:
            fds.add(int(fd))
    return threads, fds


def _named(fds: set[int]) -> list[str]:
    return [
        os.readlink(f"/proc/self/fd/{fd}") for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")
    ]


class _States:
    """What a server may be doing when it is told to end."""

    def __init__(self, bout: Bout) -> None:
        self._bout = bout
        self._rng = random.Random(bout.rng.random())
        self.callers: list[Caller] = []
        self.all = (
            self.just_started, self.loading, self.idle, self.half_asked, self.not_begun,
            self.speaking, self.interrupted, self.decoding, self.recogniser_killed,
            self.read_by_nobody,
        )  # fmt: skip
        self.decoders: dict[Callable[[Server], None], str] = {
            self.loading: "stress.races.shutdown:Slow",
            self.decoding: "stress.races.shutdown:Stuck",
        }

    def _call(self, server: Server, *, start: bool = True) -> Caller:
        number = len(self.callers)
        caller = Caller(self._bout, number, server.address, full=number % 2 == 0)
        self.callers.append(caller)
        self._bout.expect(caller.upgrade() == 101, "a caller was refused")
        if start:
            caller.start()
        return caller

    def _ready(self, server: Server) -> None:
        self._bout.until(lambda: server.asr.ready, "the recogniser is ready")

    def just_started(self, server: Server) -> None:
        """Nothing has happened yet."""

    def loading(self, server: Server) -> None:
        """The recogniser has not loaded its model, and callers speak."""
        for _ in range(CALLS):
            self._call(server).hum()

    def idle(self, server: Server) -> None:
        self._ready(server)

    def half_asked(self, server: Server) -> None:
        """Connected, with half a request."""
        for number in range(CALLS):
            caller = Caller(self._bout, number, server.address, full=False)
            caller.sock.sendall(b"GET /twilio HTT")
            self.callers.append(caller)

    def not_begun(self, server: Server) -> None:
        """Upgraded, and no `start`."""
        for _ in range(CALLS):
            self._call(server, start=False)

    def speaking(self, server: Server) -> None:
        """Answers are on their way out."""
        self._ready(server)
        for _ in range(CALLS):
            self._call(server).hum()
        self._bout.until(lambda: server.ios[0].frames > 5, "somebody is answered")

    def interrupted(self, server: Server) -> None:
        """Everybody takes the floor."""
        self.speaking(server)
        for caller in self.callers:
            caller.hum()

    def decoding(self, server: Server) -> None:
        """A decoder hangs, and more turns wait for it."""
        self._ready(server)
        for _ in range(CALLS):
            self._call(server).hum()
        self._bout.until(lambda: server.asr.decoding, "a decode is under way")

    def recogniser_killed(self, server: Server) -> None:
        self.speaking(server)
        for pid in recognisers(os.getpid()):
            kill(pid)

    def read_by_nobody(self, server: Server) -> None:
        """Frames wait for a peer that does not read."""
        self.speaking(server)
        for _ in range(5):
            for caller in self.callers:
                caller.hum()
            time.sleep(self._rng.random() * 0.3)


def _signal(bout: Bout) -> None:
    """A process, told to end once or twice, at any moment."""
    number = bout.rng.choice((signal.SIGTERM, signal.SIGINT))
    delay, again = bout.rng.random() * STARTS, bout.rng.random() < 0.5
    bout.setting = f"{number.name} after {delay:.2f} s{', twice' * again}"
    command = [sys.executable, "-X", "faulthandler", "-m", "stress.whole", str(bout.seed), "none"]
    command += ["--port", "0", "--log-format", "json"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stderr=said, process_group=0)
        try:
            time.sleep(delay)
            children = recognisers(process.pid)
            process.send_signal(number)
            if again:
                time.sleep(bout.rng.random() * 0.2)
                process.send_signal(number)
            status = process.wait(BOUND)
        except subprocess.TimeoutExpired:
            bout.forbid(f"it still runs {BOUND:g} s after the signal")
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        text = said.read().decode()
    listening = '"listening"' in text
    ends = {Exit.OK, Exit.DRAIN} if listening else {Exit.OK, Exit.DRAIN, -number, 130, 1}
    bout.expect(status in ends, f"it ended with status {status} and said {text[-2000:]}")
    bout.until(
        lambda: not [pid for pid in children if Path(f"/proc/{pid}/stat").exists()],
        f"its recogniser processes {children} end with it",
        10,
    )
