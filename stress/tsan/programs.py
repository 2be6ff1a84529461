"""What runs under ThreadSanitizer. No numpy, no socket: all memory that is touched is watched.

    python -m stress.tsan.programs NAME --seed 1 --seconds 20

Every program repeats small rounds until its time is up; each round makes fresh objects, lets
threads at them, and checks the program's own invariant: nothing lost, duplicated, reordered or
torn. Rings are tiny and begin next to the wrap. The last line says what was done, as JSON; a
broken invariant is an exception, a program that hangs is ended by its deadline.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import local
from typing import NoReturn

from threadline.config import Log
from threadline.threads.messages import FloorTaken
from threadline.threads.ring import MODULUS, AudioRing, EventRing
from threadline.threads.wake import Inbox, Outbox

from ..bout import Bout, Crew
from .counts import unshare
from .table import FIRST_EPOCH, Table

PAYLOAD = 32
CAPACITIES = (1, 2, 3, 8)
RECORDS = 1500  # of a round: six times round the cursors
WAKE_SECONDS = 20.0
"""A wake-up that has not come by then is lost, however slow the machine."""

_TRIES = 20  # then the processor is given away: two threads that only spin get nowhere here


class _Over(Exception):  # noqa: N818  # the other threads are done, or one has failed
    pass


class _Spin(local):
    tries = 0


_spin = _Spin()


def nap(crew: Crew) -> None:
    """Nothing to do at the moment: look again, and now and then let others run."""
    if crew.over:
        raise _Over
    _spin.tries += 1
    if _spin.tries % _TRIES == 0:
        os.sched_yield()


def near_the_wrap[R: (AudioRing, EventRing[FloorTaken])](ring: R, rng: random.Random) -> R:
    """Let a fresh ring's cursors begin where they wrap within a few records."""
    start = rng.randrange(MODULUS - 4, MODULUS)
    ring.head.at = ring.tail.at = ring._head_seen = ring._tail_seen = start
    return ring


def go(crew: Crew, **threads: Callable[[], None]) -> None:
    """Run these threads to their end, with nothing ordering them but what they share by intent."""

    def until_over(body: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with suppress(_Over):
                body()

        return run

    bodies = {name.replace("_", "-"): until_over(body) for name, body in threads.items()}
    unshare(crew, *bodies.values())
    for name, body in bodies.items():
        crew.start(name, body)
    crew.join()


# -- rings -------------------------------------------------------------------------------------


def record(number: int) -> tuple[int, int, int, int, int, bytes]:
    """Every field of it tells its number, so that a torn one is seen."""
    word = number.to_bytes(4, "little")
    return number, number ^ 0xFFFF, number * 3, number & 0xFFFF, number << 20, word * (PAYLOAD // 4)


def audio_rounds(bout: Bout, make: Callable[[int], AudioRing], *, checked: bool = True) -> None:
    """One round: a producer, a consumer that sometimes prefers fresh, a reporter."""
    ring = near_the_wrap(make(bout.rng.choice(CAPACITIES)), bout.rng)
    fresh = bout.rng.random() < 0.3
    crew = Crew(bout)
    done: list[bool] = []

    def produce() -> None:
        for number in range(RECORDS):
            while not ring.push(*record(number)):
                nap(crew)
        done.append(True)

    def consume() -> None:
        wanted = 0
        while wanted < RECORDS:
            wanted += ring.skip_to(1) if fresh and wanted % 7 == 0 else 0
            popped = ring.pop()
            if popped is None:
                if done and not ring.backlog():
                    break
                nap(crew)
                continue
            if checked and popped != record(wanted):
                bout.forbid(f"record {wanted} of a ring of {ring.capacity} came out as {popped}")
            wanted += 1
        bout.expect(not checked or wanted == RECORDS, f"{RECORDS} went in, {wanted} came out")

    def report() -> None:
        while not done:
            bout.expect(0 <= ring.depth() < MODULUS, "a depth")
            bout.expect(ring.refused >= 0 and ring.skipped >= 0, "counts")
            nap(crew)

    go(crew, producer=produce, consumer=consume, reporter=report)
    bout.count(records=RECORDS, skipped=ring.skipped, refused=ring.refused)


def audio_ring(bout: Bout) -> None:
    """Records in, the same out, in order; what `skip_to` dropped is counted."""
    audio_rounds(bout, lambda capacity: AudioRing(capacity, PAYLOAD))


def event_ring(bout: Bout) -> None:
    """Events in, the same out, in order."""
    made: EventRing[FloorTaken] = EventRing(bout.rng.choice(CAPACITIES))
    ring = near_the_wrap(made, bout.rng)
    crew = Crew(bout)

    def produce() -> None:
        for number in range(RECORDS):
            while not ring.push(FloorTaken(7, 1, number, number << 20)):
                nap(crew)

    def consume() -> None:
        for number in range(RECORDS):
            while (event := ring.pop()) is None:
                nap(crew)
            wanted = FloorTaken(7, 1, number, number << 20)
            bout.expect(event == wanted, f"{wanted} went in, {event} came out")

    go(crew, producer=produce, consumer=consume)
    bout.count(events=RECORDS, refused=ring.refused)


def inbox(bout: Bout) -> None:
    """Three outboxes into one inbox of tiny ports: nothing lost, every sleeper is woken."""
    senders, each = 3, 300
    box = Inbox("taker")
    outboxes: list[Outbox[tuple[int, int]]] = [
        box.port(f"sender {sender}", bout.rng.choice(CAPACITIES), limit=each)
        for sender in range(senders)
    ]
    crew = Crew(bout)

    def send(sender: int) -> Callable[[], None]:
        outbox = outboxes[sender]

        def run() -> None:
            for number in range(each):
                outbox.put((sender, number))
                if number % 5 == 0:
                    os.sched_yield()
            while not outbox.flush():
                nap(crew)

        return run

    def take() -> None:
        wanted = [0] * senders
        while sum(wanted) < senders * each:
            bout.expect(box.wait(WAKE_SECONDS), f"a wake-up was lost: {wanted} have come")
            for event in box.events():
                assert isinstance(event, tuple)
                sender, number = event
                bout.expect(number == wanted[sender], f"{event} came where {wanted} was due")
                wanted[sender] += 1

    go(crew, taker=take, **{f"sender_{sender}": send(sender) for sender in range(senders)})
    bout.count(events=senders * each, stalls=sum(outbox.stalls for outbox in outboxes))
    box.close()


# -- threads as in the server ------------------------------------------------------------------


def call_table(bout: Bout) -> None:
    """One slot of the call table under several callers: see table.py."""
    table = Table(bout, nap)
    go(table.crew, **table.threads())
    pacer = table.pacer
    bout.count(sent=table.sent, clears=table.clears, stale=table.stale + pacer.stale)
    bout.count(epochs=table.call.epoch.at - FIRST_EPOCH, ticks=pacer.beat)
    table.close()


def log_rings(bout: Bout) -> None:
    """Threads that log and end: a line each and in order, or counted as dropped."""
    logs = importlib.import_module("threadline.threads.logs")
    read, write = os.pipe()
    before = logs.dropped()
    logs.start(Log(level="info", format="json"), fd=write)
    log, crew = logs.logger("tsan"), Crew(bout)
    text: list[bytes] = []
    threads, each = 4, 150

    def say(thread: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(each):
                log.info("said", thread=thread, number=number)
                if number % 40 == 0:
                    log.warning("said aloud", thread=thread, number=number)

        return run

    def listen() -> None:
        while chunk := os.read(read, 65_536):
            text.append(chunk)

    listener = Crew(bout)
    listener.start("listener", listen)
    go(crew, **{f"sayer_{thread}": say(thread) for thread in range(threads)})
    bout.expect(logs.stop(WAKE_SECONDS), "the log thread ends")
    os.close(write)
    listener.join()
    os.close(read)
    lines = [json.loads(line) for line in b"".join(text).splitlines()]
    heard = [line for line in lines if line["logger"] == "tsan"]
    dropped = logs.dropped() - before
    said = threads * (each + len(range(0, each, 40)))
    bout.expect(len(heard) + dropped == said, f"{said} said, {len(heard)} heard, {dropped} dropped")
    for thread in range(threads):
        numbers = [line["number"] for line in heard if line["thread"] == thread]
        bout.expect(numbers == sorted(numbers), f"thread {thread} was heard out of order")
    bout.count(records=said, dropped=dropped)


def race(name: str) -> Callable[[Bout], None]:
    """A race of `just stress`, disturbances included, much smaller."""

    def run(bout: Bout) -> None:
        module = importlib.import_module(f"stress.races.{name}")
        small = Bout(name, bout.seed + bout.counts["rounds"], 0.02)
        module.run(small)
        bout.count(**{key: count for key, count in small.counts.items() if key != "rounds"})

    return run


PROGRAMS: dict[str, Callable[[Bout], None]] = {
    "audio ring": audio_ring,
    "event ring": event_ring,
    "inbox": inbox,
    "call table": call_table,
    "log rings": log_rings,
    "stress frames": race("frames"),
    "stress wakeups": race("wakeups"),
}


def repeat(bout: Bout, program: Callable[[Bout], None], seconds: float) -> None:
    """Rounds until the time is up; at least one."""
    end = time.monotonic() + seconds
    while True:
        program(bout)
        bout.count(rounds=1)
        if time.monotonic() >= end:
            return


def main() -> NoReturn:
    """The command line. ThreadSanitizer turns the exit status into 66 when it has reported."""
    from .controls import CONTROLS

    parser = argparse.ArgumentParser(prog="python -m stress.tsan.programs", description=__doc__)
    parser.add_argument("name", choices=[*PROGRAMS, *CONTROLS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    faulthandler.dump_traceback_later(asked.seconds + 120, exit=True)
    bout = Bout(asked.name, asked.seed, 1.0)
    program = PROGRAMS.get(asked.name) or CONTROLS[asked.name].program
    repeat(bout, program, asked.seconds)
    bout.expect("numpy" not in sys.modules, "numpy is not watched, and must not be loaded")
    bout.expect(not sys._is_gil_enabled(), "the GIL stays off")
    sys.stdout.write(json.dumps(bout.counts) + "\n")
    sys.exit()


if __name__ == "__main__":
    main()
