"""No wake-up is lost: whoever sleeps on an inbox learns of everything that was sent to it.

Several threads send through ports of one inbox, each by its own outbox; one takes. Nobody sends
more than a few events until some have been acknowledged, so the taker empties its rings and falls
asleep thousands of times while a sender is about to push.

ACCEPTABLE  a wake-up for nothing; several events for one wake-up; an event kept in an outbox
            while the ring is full.
FORBIDDEN   the taker's sleep reaches its time-out while events wait; an event lost, duplicated
            or out of its sender's order; an outbox that says it is empty and is not.

Perturbed   ports of 1, 2, 3 and 128 cells; 1 to 8 senders that come and go; yields between push
            and wake and between wake and drain; drains that end with an exception.
Seed        draws all of these.
"""

from __future__ import annotations

import time
from functools import partial
from threading import Semaphore

from threadline.threads.wake import Inbox, Outbox

from ..bout import DEADLINE, Bout, Crew
from ..perturb import Yields, disturbed

WHAT = "no wake-up lost, with many senders"
LIMIT = 240.0

ROUNDS = 16
EVENTS = 12_000  # of a round, over all senders
SLEEP = 20.0  # s: a wake-up that has not come by then never will


class _Awkward(Exception):  # noqa: N818  # no error: what a stage might raise
    """What a stage raises over an event."""


class _LateInbox(Inbox):
    """An inbox whose wake-ups come late, and whose sleeper is slow to look."""

    __slots__ = ("yields",)

    def __init__(self, yields: Yields) -> None:
        super().__init__("taker")
        self.yields = yields

    def wake(self) -> None:
        self.yields.here()
        super().wake()
        self.yields.here()

    def clear(self) -> None:
        self.yields.here()
        super().clear()
        self.yields.here()


def run(bout: Bout) -> None:
    for _ in range(bout.many(ROUNDS)):
        capacity = bout.rng.choice((1, 2, 3, 128))
        senders = bout.rng.randrange(1, 9)
        window = bout.rng.choice((1, 2, 7))
        rate = bout.rng.choice((0.0, 0.01, 0.1))
        bout.setting = (
            f"{senders} senders, ports of {capacity}, {window} unacknowledged, yields {rate}"
        )
        with disturbed(bout):
            _round(bout, senders, capacity, window, rate)
        bout.count(rounds=1)


def _round(bout: Bout, senders: int, capacity: int, window: int, rate: float) -> None:
    inbox = _LateInbox(Yields(bout, rate))
    each = EVENTS // senders // (4 if rate > 0.05 else 1)
    ports: list[Outbox[tuple[int, int]]] = [
        inbox.port(f"sender {number}", capacity) for number in range(senders)
    ]
    allowed = [Semaphore(window) for _ in ports]
    taken = [0] * senders
    sleeps = wakes = awkward = 0
    rng = bout.draws("drains")

    def send(number: int) -> None:
        port = ports[number]
        for event in range(each):
            if not allowed[number].acquire(timeout=DEADLINE):
                bout.forbid(f"sender {number} has had no answer since event {event - window}")
            if crew.over:
                return
            port.put((number, event))
        while not port.flush():
            time.sleep(0)
        bout.expect(not port._kept, "an outbox says that it is flushed and still keeps events")

    def take() -> None:
        nonlocal sleeps, wakes, awkward
        while sum(taken) < each * senders and not crew.over:
            sleeps += 1
            if not inbox.wait(SLEEP):
                waiting = inbox.depth()
                bout.expect(not waiting, f"slept {SLEEP} s beside {waiting} events")
                bout.forbid(f"slept {SLEEP} s; {taken} of {each} each came")
            try:
                for event in inbox.events():
                    wakes += 1
                    assert isinstance(event, tuple), event
                    number: int
                    count: int
                    number, count = event
                    expected, taken[number] = taken[number], count + 1
                    bout.expect(count == expected, f"{count} of {number} came, not {expected}")
                    allowed[number].release()
                    if rng.random() < 0.002:
                        raise _Awkward
            except _Awkward:
                awkward += 1  # what was not taken must still wake us

    crew = Crew(bout)
    crew.start("take", take)
    for number in range(senders):
        crew.start(f"send-{number}", partial(send, number))
    crew.join("all events were taken")
    bout.expect(inbox.depth() == 0, f"{inbox.depth()} events are left")
    inbox.close()
    bout.count(events=wakes, sleeps=sleeps, exceptions=awkward)
