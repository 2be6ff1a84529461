"""Ways to disturb threads, each drawn from a seed. None needs anything of production code.

    yields      the processor is given away at named points: at every load and store of a cursor
                (the rings take their cursor type as a parameter), before and after every wake
                (stages take theirs as a callable)
    switches    the GIL build switches threads every microsecond (free-threaded: no effect)
    squeeze     all threads on one processor, then on all again
    stops       stop-the-world, by the cheapest of its triggers
    collections gc.collect, which stops the world and scans the heap
    churn       threads begin and end, which resizes the interpreter's tables
    imports     extension modules are imported late: the GIL comes on for a moment
    freezes     SIGSTOP and SIGCONT of the whole process, from another one

A seed repeats what was drawn, not what the processor made of it: two runs of one seed disturb
in the same way, and the threads may still meet otherwise.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from threadline.threads.ring import MODULUS, Cursor

from .bout import Bout

LATE = ("_lsprof", "_statistics", "cmath", "_zoneinfo", "_bisect", "_csv", "_heapq", "_lzma")
"""Extension modules that leave the GIL off and that nothing here keeps state in."""

_CPUS = os.sched_getaffinity(0)


class Yields:
    """Gives the processor away at random. One of each thread's own: random is not shared."""

    def __init__(self, bout: Bout, rate: float) -> None:
        self._bout = bout
        self._rate = rate
        self._mine = threading.local()

    def here(self) -> None:
        """A point where another thread may get ahead."""
        mine = self._mine
        try:
            draw = mine.draw
        except AttributeError:
            draw = mine.draw = self._bout.draws(threading.current_thread().name).random
        chance = draw()
        if chance < self._rate:
            # Mostly a mere yield; now and then long enough for anybody to come by.
            time.sleep(0 if chance > self._rate / 20 else draw() * 0.0005)

    def around(self, wake: Callable[[], None]) -> Callable[[], None]:
        """A wake-up that comes late, and after which its sender is late."""

        def late() -> None:
            self.here()
            wake()
            self.here()

        return late

    def cursor(self, at: int = 0) -> Callable[[], Cursor]:
        """Makes cursors that count from `at` and yield around each access."""
        yields = self

        class Yielding(Cursor):
            __slots__ = ("_cell",)

            def __init__(self) -> None:
                self._cell = Cursor()
                self._cell.at = at

            @property
            def at(self) -> int:
                yields.here()
                return self._cell.at

            @at.setter
            def at(self, value: int) -> None:
                yields.here()
                self._cell.at = value
                yields.here()

        return Yielding


def cursor_at(at: int) -> Callable[[], Cursor]:
    """Makes ordinary cursors that begin near, or at, some count."""

    def make() -> Cursor:
        cursor = Cursor()
        cursor.at = at
        return cursor

    return make


def near_the_wrap(rng: random.Random) -> int:
    """Where a cursor may begin so that it wraps soon."""
    return rng.randrange(MODULUS - 4, MODULUS)


# -- disturbances of the whole process, for the length of a block ------------------------------


@contextmanager
def _aside(
    name: str, rng: random.Random, longest: float, act: Callable[[], object]
) -> Iterator[None]:
    """A thread that acts, naps up to `longest` s, and acts again."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(rng.random() * longest):
            act()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


@contextmanager
def switches(_: random.Random) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def squeeze(rng: random.Random) -> Iterator[None]:
    def act() -> None:
        _run_on({rng.choice(sorted(_CPUS))} if rng.random() < 0.7 else _CPUS)

    try:
        with _aside("squeeze", rng, 0.2, act):
            yield
    finally:
        _run_on(_CPUS)


def _run_on(cpus: set[int]) -> None:
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has just ended
            os.sched_setaffinity(int(task), cpus)


def stops(rng: random.Random) -> AbstractContextManager[None]:
    usual = sys.getrecursionlimit()

    def act() -> None:
        for more in range(rng.randrange(1, 20)):
            sys.setrecursionlimit(usual + more % 2)

    return _aside("stops", rng, 0.004, act)


def collections(rng: random.Random) -> AbstractContextManager[None]:
    return _aside("collections", rng, 0.1, gc.collect)


def churn(rng: random.Random) -> AbstractContextManager[None]:
    def act() -> None:
        threads = [threading.Thread(target=int) for _ in range(rng.randrange(1, 40))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _aside("churn", rng, 0.05, act)


def imports(rng: random.Random) -> AbstractContextManager[None]:
    def act() -> None:
        name = rng.choice(LATE)
        sys.modules.pop(name, None)
        importlib.import_module(name)

    return _aside("imports", rng, 0.05, act)


@contextmanager
def freezes(rng: random.Random, pid: int | None = None) -> Iterator[None]:
    """Stop and continue a process (this one unless told otherwise), from a third one."""
    pid = pid or os.getpid()
    script = (
        "import os, random, signal, sys, time\n"
        "pid, seed = int(sys.argv[1]), sys.argv[2]\n"
        "rng = random.Random(seed)\n"
        "while os.getppid() == int(sys.argv[3]):\n"
        "    time.sleep(rng.random() * 0.3)\n"
        "    os.kill(pid, signal.SIGSTOP)\n"
        "    time.sleep(rng.random() * 0.06)\n"
        "    os.kill(pid, signal.SIGCONT)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", script, str(pid), str(rng.random())]
    helper = subprocess.Popen([*command, str(os.getpid())], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        # It may be killed between its two signals; when the stopped process is this one, it
        # cannot be, for then we are not running.
        helper.kill()
        helper.wait()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


ALL: dict[str, Callable[[random.Random], AbstractContextManager[None]]] = {
    "switches": switches,
    "squeeze": squeeze,
    "stops": stops,
    "collections": collections,
    "churn": churn,
    "imports": imports,
    "freezes": freezes,
}


@contextmanager
def disturbed(bout: Bout, names: Sequence[str] = tuple(ALL), most: int = 3) -> Iterator[None]:
    """Several of them at once, drawn from the seed; named in every failure inside the block."""
    chosen = bout.rng.sample(list(names), bout.rng.randrange(min(most, len(names)) + 1))
    before = bout.setting
    bout.setting = ", ".join(filter(None, (before, *chosen)))
    try:
        with ExitStack() as stack:
            for name in chosen:
                stack.enter_context(ALL[name](bout.draws(f"{name} {bout.counts}")))
            yield
    finally:
        bout.setting = before
