"""One run: the vendors, the server and the callers, each a process, pinned apart.

On two cores the server has one of them for itself and its callers and vendors share the other,
so that the number of calls is what one core carries. What the server spends is taken from /proc,
by thread, from the time all calls are on the line until they end; its recogniser, a process of its
own, is counted with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from threadline.errors import ThreadlineError
from threadline.threads.child_server import ChildServer, child_server, cpu_by_thread
from threadline.threads.server import FALLBACK_SHARE

from ..bench.phone import value
from ..bench.vendors import CASCADE, vendors
from ..compare.record import Build, Lateness, interpreter
from ..whole import recognisers

HEARD = "A table for four, please."
ANSWER = (
    "Sure, I can do that for you. We have a table by the window at seven, and another one in the"
    " garden at half past eight. Which of the two would you like to have?"
)
# What this shell says of the GIL, or of the processor that numpy's products are made for, is not
# said to a server.
AS_IT_IS = ("env", "-u", "PYTHON_GIL", "-u", "OPENBLAS_CORETYPE")
LONGEST_SECONDS = 500.0
NOISY_MS = 1.5  # of a bare timer's p99.9; with the machine to ourselves it has 0.2 to 0.9
ATTEMPTS = 3  # of a load that broke the level while the machine was noisy
FLAGS = ("--set", "endpoint.mode=silence", "--log-format", "json")
LOCAL_FLAGS = (
    *("--stt", "whisper", "--llm", "scripted", "--tts", "piper"),
    *("--set", "asr.threads=1"),  # it has one core
    *("--set", "tts.cache_bytes=0"),  # a model would not say the same twice
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one number of calls came to, on one build."""

    build: Build
    calls: int
    response_p50: float
    response_p95: float
    barge_p95: float  # nan: nobody cut in
    frame_p999: float  # ms from a frame's deadline to its socket
    control_p999: float  # of a bare timer beside it
    underruns: int  # at the phone, behind its 40 ms
    lost: int  # calls dropped and turns unanswered
    cpu: dict[str, float] = field(default_factory=dict)  # % of a core a call, by thread
    rss_mb: float = 0.0  # of the process, all calls on the line
    idle_mb: float = 0.0  # before the first
    messages: float = 0.0  # a second, both ways
    client_p999: float = 0.0
    flags: str = ""  # that the interpreters were built with: `justw` has both built alike

    @property
    def cpu_percent(self) -> float:
        """% of a core that one call takes."""
        return sum(self.cpu.values())

    @property
    def noisy(self) -> bool:
        """The machine did not let a bare timer run on time either."""
        return self.control_p999 > NOISY_MS

    def broken(self, single: float) -> list[str]:
        """What of the service level was not kept; `single`: response p95 of one call."""
        problems = []
        if self.response_p95 > single + 100:
            problems.append("slow answers")
        if self.frame_p999 > max(5.0, self.control_p999):
            problems.append("late frames")
        if self.barge_p95 > 150:
            problems.append("slow to fall silent")
        if self.underruns:
            problems.append("underruns")
        if self.lost:
            problems.append("lost calls")
        return problems


@dataclass(frozen=True, slots=True)
class Bench:
    """The interpreters, the clips, and which cores are whose."""

    python: dict[Build, str]
    line: Path
    cut: Path
    folder: Path
    server_cores: str
    load_cores: str
    lines: int

    def run(self, build: Build, calls: int, flags: Sequence[str] = ()) -> Result:
        """Hold so many calls."""
        # With the GIL on, one line in four is in use: fallback mode.
        lines = max(4, calls) * (FALLBACK_SHARE if build == "gil" else 1)
        with vendors(HEARD, ANSWER, wrap=self._beside) as environ:
            command = [
                *(*AS_IT_IS, *(f"{name}={text}" for name, text in environ.items())),
                *("taskset", "-c", self.server_cores, self.python[build], "-m", "threadline"),
                *("serve", "--port", "0", "--max-calls", str(lines), *CASCADE, *FLAGS),
                *("--set", "server.drain_seconds=0.1", *flags),
            ]
            if build == "gil":
                command += ["--gil", "accept"]
            with child_server(command, self.folder / "server.log") as server:
                return self._measure(build, calls, server)

    def run_local(self, calls: int, flags: Sequence[str] = ()) -> Result:
        """Hold so many calls without any vendor."""
        command = [
            *(*AS_IT_IS, "taskset", "-c", self.server_cores),
            *(self.python["free"], "-m", "stress.capacity.local", ANSWER),
            *("--port", "0", "--max-calls", str(max(4, calls)), *LOCAL_FLAGS, *FLAGS),
            *("--set", "server.drain_seconds=0.1", *flags),
        ]
        with child_server(command, self.folder / "server.log") as server:
            return self._measure("free", calls, server, scattered=True)

    def _measure(
        self, build: Build, calls: int, server: ChildServer, *, scattered: bool = False
    ) -> Result:
        idle = sum(map(rss_mb, [server.pid, *recognisers(server.pid)]))
        with subprocess.Popen(
            self._beside([self.python["free"], "-m", "stress.compare.probes", "control"]),
            stdout=subprocess.PIPE,
        ) as control:
            watched = Watched(server)
            try:
                told = self._place(calls, server, watched, scattered)
            finally:
                watched.end()
                control.terminate()
            said = json.loads(control.communicate(timeout=10)[0])
        late = Lateness(tuple(said["bounds"]), tuple(said["counts"]))
        page = server.metrics()
        frames = Lateness.of_page(page, "threadline_frame_lateness_seconds")
        return Result(
            build=build,
            calls=calls,
            response_p50=quantile(told["response_ms"], 50),
            response_p95=quantile(told["response_ms"], 95),
            barge_p95=quantile(told["barge_ms"], 95),
            frame_p999=frames.quantile(0.999),
            control_p999=late.quantile(0.999),
            underruns=int(told["underruns"]),
            lost=int(told["dropped"] + told["unanswered"]),
            cpu=watched.percent(calls),
            rss_mb=watched.rss,
            idle_mb=idle,
            messages=told["messages"] / told["seconds"] * calls,
            client_p999=told["client_p999"],
            flags=interpreter()["flags"],
        )

    def _place(
        self, calls: int, server: ChildServer, watched: Watched, scattered: bool
    ) -> dict[str, float]:
        command = [
            *(self.python["free"], "-m", "stress.capacity.load"),
            *(f"ws://{server.address}/twilio", str(calls), str(self.lines), "1"),
            *(str(self.line), str(self.cut), *(("--scattered",) if scattered else ())),
        ]
        watched.start()
        done = subprocess.run(
            self._beside(command), stdout=subprocess.PIPE, timeout=LONGEST_SECONDS, check=False
        )
        if done.returncode:
            raise ThreadlineError(f"The callers failed: {self.folder / 'server.log'} may say why.")
        return json.loads(done.stdout)  # type: ignore[no-any-return]  # written by load.py

    def _beside(self, command: list[str]) -> list[str]:
        """On the cores of the load."""
        return ["taskset", "-c", self.load_cores, *command]


class Watched:
    """A server while all of its calls are on the line, looked at from a thread of its own."""

    def __init__(self, server: ChildServer) -> None:
        self.rss = 0.0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watched")
        self._cpu: list[tuple[float, float, dict[str, float]]] = []  # s, calls on the line, CPU

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            live = value(self._server.metrics(), "threadline_calls")
            family = [self._server.pid, *recognisers(self._server.pid)]
            self.rss = max(self.rss, sum(map(rss_mb, family)))
            spent: dict[str, float] = {}
            for pid in family:
                for name, seconds in cpu_by_thread(pid).items():
                    spent[name] = spent.get(name, 0.0) + seconds
            self._cpu.append((time.monotonic(), live, spent))

    def percent(self, calls: int) -> dict[str, float]:
        """% of a core a call and thread, over the time in which all calls were on."""
        full = [row for row in self._cpu if row[1] >= calls] or self._cpu
        (begin, _, before), (end, _, after) = full[0], full[-1]
        seconds = max(1e-9, (end - begin) * calls)
        return {
            name: 100 * (spent - before.get(name, 0.0)) / seconds for name, spent in after.items()
        }


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def quantile(values: object, q: float) -> float:
    """nan when there are none."""
    found = np.array(values, float)
    return float(np.percentile(found, q)) if len(found) else float("nan")
