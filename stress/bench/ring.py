"""What a ring costs, beside the queues of the standard library.

    python -m stress.bench.ring --seconds 20

push + pop    one thread, its processor time
busy threads  an item from one thread to another, neither of which sleeps
echo          there and back between two threads that sleep in between

All contenders take turns within each round, and what is printed is the median of the rounds:
on a machine that is shared, trust the ratios. Run it with ``-O`` to see the cost without the
ownership assertions.
"""

from __future__ import annotations

import os
import platform
import queue
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, quantiles

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from threadline.errors import ThreadlineError
from threadline.threads.calls import FRAME
from threadline.threads.ring import MAX_CAPACITY, AudioRing, EventRing
from threadline.threads.wake import Inbox, Outbox

from ..flags import amount, command_line, told

ALONE = 20_000
ACROSS = 10_000
STUCK_SECONDS = 30.0  # for all of them: a second is long
TRIPS = 500

EVENT = ("an event", 1)
AUDIO = bytes(FRAME)

type Push = Callable[[], object]
"""Puts one item in; False when there is no room, anything else when it is in."""

type Pop = Callable[[], object]
"""Takes one item out; None when there is none."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to hand items from one thread to another.

    `make` gives a fresh one, as its two ends. `trip` measures one echo between two threads that
    sleep, in ns, so many times; None when it cannot wake anybody.
    """

    name: str
    alone: Callable[[], float]
    make: Callable[[], tuple[Push, Pop]]
    trip: Callable[[int], list[int]] | None


@dataclass(slots=True)
class Times:
    """Of one contender, one entry per round; ns."""

    alone: list[float] = field(default_factory=list)
    across: list[float] = field(default_factory=list)
    trip_p50: list[float] = field(default_factory=list)
    trip_p99: list[float] = field(default_factory=list)


# -- one thread --------------------------------------------------------------------------------


def alone(push: Callable[[object], object], pop: Callable[[], object]) -> float:
    """ns of the processor for one push and one pop in one thread, the loop around included."""
    begin = time.thread_time_ns()  # not the clock: others may use this core, too
    for _ in range(ALONE):
        push(EVENT)
        pop()
    return (time.thread_time_ns() - begin) / ALONE


def alone_audio() -> float:
    """The same for a frame of audio: more arguments, and a copy each way."""
    ring = AudioRing(MAX_CAPACITY, FRAME)
    push, pop = ring.push, ring.pop
    begin = time.thread_time_ns()
    for _ in range(ALONE):
        push(1, 2, 3, 0, begin, AUDIO)
        pop()
    return (time.thread_time_ns() - begin) / ALONE


def alone_events() -> float:
    ring: EventRing[object] = EventRing()
    return alone(ring.push, ring.pop)


def alone_deque() -> float:
    items: deque[object] = deque()
    return alone(items.append, items.popleft)


def alone_simple() -> float:
    items: queue.SimpleQueue[object] = queue.SimpleQueue()
    return alone(items.put, items.get_nowait)


def alone_queue() -> float:
    items: queue.Queue[object] = queue.Queue(MAX_CAPACITY)
    return alone(items.put_nowait, items.get_nowait)


# -- two threads, both busy --------------------------------------------------------------------


def make_events() -> tuple[Push, Pop]:
    ring: EventRing[object] = EventRing()
    return lambda: ring.push(EVENT), ring.pop


def make_audio() -> tuple[Push, Pop]:
    ring = AudioRing(MAX_CAPACITY, FRAME)
    return lambda: ring.push(1, 2, 3, 0, 4, AUDIO), ring.pop


def make_deque() -> tuple[Push, Pop]:
    items: deque[object] = deque()

    def pop() -> object:
        try:
            return items.popleft()
        except IndexError:
            return None

    return lambda: items.append(EVENT), pop


def make_simple() -> tuple[Push, Pop]:
    items: queue.SimpleQueue[object] = queue.SimpleQueue()

    def pop() -> object:
        try:
            return items.get_nowait()
        except queue.Empty:
            return None

    return lambda: items.put(EVENT), pop


def make_queue() -> tuple[Push, Pop]:
    items: queue.Queue[object] = queue.Queue(MAX_CAPACITY)

    def push() -> object:
        try:
            items.put_nowait(EVENT)
        except queue.Full:
            return False
        return True

    def pop() -> object:
        try:
            return items.get_nowait()
        except queue.Empty:
            return None

    return push, pop


def across(make: Callable[[], tuple[Push, Pop]]) -> float:
    """ns per item from one busy thread to another; who has to wait gives its core away."""
    push, pop = make()
    barrier = threading.Barrier(2)
    end = time.monotonic() + STUCK_SECONDS

    def give_way() -> None:
        if time.monotonic() > end:
            raise ThreadlineError("An item was lost on its way to the other thread: this is a bug.")
        time.sleep(0)

    def produce() -> None:
        barrier.wait()
        for _ in range(ACROSS):
            while push() is False:
                give_way()

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    barrier.wait()
    begin = time.perf_counter_ns()
    for _ in range(ACROSS):
        while pop() is None:
            give_way()
    took = time.perf_counter_ns() - begin
    producer.join()
    return took / ACROSS


# -- two threads that sleep --------------------------------------------------------------------


def trips(
    count: int,
    send: Callable[[], object],
    receive: Callable[[], object],
    echo: Callable[[], object],
) -> list[int]:
    """Time `send` then `receive`, while another thread does `echo` as often."""

    def answer() -> None:
        for _ in range(count):
            echo()

    echoing = threading.Thread(target=answer)
    echoing.start()
    took = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        send()
        receive()
        took.append(time.perf_counter_ns() - begin)
    echoing.join()
    return took


def trip_ring(count: int) -> list[int]:
    here, there = Inbox("here"), Inbox("there")
    outward: Outbox[object] = there.port("here")
    homeward: Outbox[object] = here.port("there")

    def receive(inbox: Inbox) -> None:
        while not list(inbox.events()):
            inbox.wait(10)

    def echo() -> None:
        receive(there)
        homeward.put(EVENT)

    took = trips(count, lambda: outward.put(EVENT), lambda: receive(here), echo)
    here.close()
    there.close()
    return took


def trip_queue(
    kind: Callable[[], queue.SimpleQueue[object] | queue.Queue[object]],
) -> Callable[[int], list[int]]:
    def trip(count: int) -> list[int]:
        outward, homeward = kind(), kind()

        def echo() -> None:
            homeward.put(outward.get())

        return trips(count, lambda: outward.put(EVENT), homeward.get, echo)

    return trip


CONTENDERS = (
    Contender("EventRing", alone_events, make_events, trip_ring),
    Contender(f"AudioRing ({FRAME})", alone_audio, make_audio, None),
    Contender("collections.deque", alone_deque, make_deque, None),
    Contender(
        "queue.SimpleQueue", alone_simple, make_simple, trip_queue(queue.SimpleQueue[object])
    ),
    Contender("queue.Queue", alone_queue, make_queue, trip_queue(queue.Queue[object])),
)


def measure(seconds: float) -> dict[str, Times]:
    """Rounds of everything until the time is up; at least three."""
    found = {contender.name: Times() for contender in CONTENDERS}
    end = time.monotonic() + seconds
    rounds = 0
    while rounds < 3 or time.monotonic() < end:
        rounds += 1
        for contender in CONTENDERS:
            times = found[contender.name]
            times.alone.append(contender.alone())
            times.across.append(across(contender.make))
            if contender.trip is not None:
                percentiles = quantiles(contender.trip(TRIPS), n=100)
                times.trip_p50.append(percentiles[49])
                times.trip_p99.append(percentiles[98])
    return found


def report(found: dict[str, Times]) -> Table:
    """Medians, and how they compare with the event ring's."""
    rounds = len(found["EventRing"].alone)
    table = Table(
        title=f"median of {rounds} rounds (x: times the event ring)",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for heading in ("push + pop\nns", "busy threads\nns", "echo p50\nus", "echo p99\nus"):
        table.add_column(heading, justify="right", no_wrap=True)
    ours = found["EventRing"]
    for name, times in found.items():
        table.add_row(
            name,
            _cell(times.alone, ours.alone, 1),
            _cell(times.across, ours.across, 1),
            _cell(times.trip_p50, ours.trip_p50, 1e3),
            _cell(times.trip_p99, ours.trip_p99, 1e3),
        )
    return table


def _cell(values: list[float], ours: list[float], unit: float) -> str:
    if not values:
        return "-"
    shown = median(values) / unit
    ratio = median(a / b for a, b in zip(values, ours, strict=True))  # of the same round
    return f"{shown:.{0 if unit == 1 else 1}f} {ratio:.2f}x"


def setting() -> str:
    """On what this ran."""
    free = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL"
    gil = "on" if sys._is_gil_enabled() else "off"
    asserts = "with" if __debug__ else "without"
    return (
        f"Python {platform.python_version()} {free} build, GIL {gil}, {asserts} assertions, "
        f"{os.process_cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


@told
def main() -> int:
    """The command line."""
    parser = command_line("bench ring", __doc__)
    parser.add_argument("--seconds", type=amount, default=10.0, help="about how long to measure")
    seconds = parser.parse_args().seconds
    console = Console()
    console.print(setting())
    console.print(report(measure(seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
