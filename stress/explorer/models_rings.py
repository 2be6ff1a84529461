"""Rings, inboxes and the end of a stage: what runs, and what must never come of it.

Each family's function says in its docstring what is ACCEPTABLE and what is FORBIDDEN, and is
followed by its variants in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from .beside import Code
from .search import Check, Model, model
from .world import World, demand

PAYLOAD = 4


# -- one ring ------------------------------------------------------------------------------------


class _Audio:
    """Records whose every part follows from their number."""

    @staticmethod
    def make(code: Code, capacity: int) -> Any:
        return code.ring.AudioRing(capacity, PAYLOAD)

    @staticmethod
    def push(ring: Any, number: int) -> bool:
        return bool(ring.push(number, number, 0, 0, number, bytes([number & 255]) * PAYLOAD))

    @staticmethod
    def number(record: Any) -> int:
        generation, epoch, _, _, stamp, payload = record
        whole = bytes(payload) == bytes([generation & 255]) * PAYLOAD
        demand(whole and generation == epoch == stamp, f"a torn record, {record!r}")
        return int(generation)


class _Events:
    """Events that are numbers."""

    @staticmethod
    def make(code: Code, capacity: int) -> Any:
        return code.wake.EventRing(capacity)

    @staticmethod
    def push(ring: Any, number: int) -> bool:
        return bool(ring.push(number))

    @staticmethod
    def number(event: Any) -> int:
        demand(isinstance(event, int), f"{event!r} is popped, which nobody pushed")
        return int(event)


type _Kind = type[_Audio | _Events]


def _ring_at(code: Code, kind: _Kind, capacity: int, start: int) -> Any:
    """A ring whose cursors both stand at `start`, that belongs to no thread yet."""
    ring = kind.make(code, capacity)
    ring.head.at = ring.tail.at = ring._head_seen = ring._tail_seen = start
    code.name(ring, "ring")
    return ring


def _free(ring: Any) -> None:
    ring._producer.release()
    ring._consumer.release()


def _still_works(kind: _Kind, ring: Any, capacity: int) -> None:
    """Afterwards the ring still holds exactly its capacity."""
    _free(ring)
    numbers = list(range(100, 100 + capacity))
    demand(all(kind.push(ring, number) for number in numbers), "it holds less than its capacity")
    demand(not kind.push(ring, 99), "it holds more than its capacity")
    got = [ring.pop() for _ in numbers]
    demand([kind.number(one) for one in got] == numbers, f"it gives {got} for {numbers}")


def push_pop(
    code: Code,
    world: World,
    *,
    kind: _Kind,
    capacity: int,
    start: int,
    items: int,
    pops: int,
    filled: int = 0,
) -> Check:
    """A producer that drops what is refused, beside a consumer that pops a few times.

    ACCEPTABLE  the consumer gets the accepted items, each once, whole, in order, any number of
                them; a refusal while `capacity` items are in; None while none is visible.
    FORBIDDEN   an item lost, repeated, reordered, torn, or changed after it was popped; a
                refusal or a None without that reason; a ring that holds more or less afterwards.
    """
    ring = _ring_at(code, kind, capacity, start)
    accepted = [number for number in range(1, filled + 1) if kind.push(ring, number)]
    _free(ring)
    got: list[int] = []

    def produce() -> None:
        for number in range(filled + 1, filled + items + 1):
            if kind.push(ring, number):
                accepted.append(number)
            else:
                head = world.observe(lambda: ring.head.at)
                inside = len(accepted) - ((head - start) & 255)  # type: ignore[operator]  # an int
                demand(inside == capacity, f"a push is refused with {inside} of {capacity} inside")

    def consume() -> None:
        for _ in range(pops):
            popped = ring.pop()
            if popped is None:
                tail = world.observe(lambda: ring.tail.at)
                waiting = (tail - start - len(got)) & 255  # type: ignore[operator]  # an int
                demand(not waiting, f"a pop says None with {waiting} items visible")
            else:
                world.turn("works on what it popped")
                got.append(kind.number(popped))

    world.spawn("producer", produce)
    world.spawn("consumer", consume)

    def check() -> None:
        _free(ring)
        while (popped := ring.pop()) is not None:
            got.append(kind.number(popped))
        demand(got == accepted, f"pushed {accepted}, popped {got}")
        demand(ring.refused == filled + items - len(accepted), "refusals are miscounted")
        _still_works(kind, ring, capacity)

    return check


def largest(code: Code, world: World, *, kind: _Kind) -> Check:
    """As push_pop, with the most cells that a ring may have, two of them still free."""
    most = code.ring.MAX_CAPACITY
    return push_pop(
        code, world, kind=kind, capacity=most, start=250, items=3, pops=1, filled=most - 2
    )


def skip_stale(code: Code, world: World, *, capacity: int, start: int, keep: int) -> Check:
    """An audio producer; a consumer that pops, drops all but the newest `keep`, and pops again.

    ACCEPTABLE  whatever is popped is whole and in order; popped + skipped + left = accepted, and
                what is skipped is older than what is popped afterwards.
    FORBIDDEN   anything else; above all an item that is skipped and popped.
    """
    kind = _Audio
    ring = _ring_at(code, kind, capacity, start)
    accepted: list[int] = []
    got: list[int] = []

    def produce() -> None:
        accepted.extend([number for number in (1, 2, 3) if kind.push(ring, number)])

    def take() -> int:
        popped = ring.pop()
        if popped is None:
            return 0
        got.append(kind.number(popped))
        return 1

    def consume() -> None:
        at = take()
        at += ring.skip_to(keep)
        before = len(got)
        take()
        if len(got) > before:
            demand(got[-1] == at + 1, f"number {got[-1]} follows {at} that were taken or skipped")

    world.spawn("producer", produce)
    world.spawn("consumer", consume)

    def check() -> None:
        _free(ring)
        while take():
            pass
        demand(len(got) + ring.skipped == len(accepted), "items are lost or made up")
        demand(got == sorted(set(got)), f"{got} is out of order")
        _still_works(kind, ring, capacity)

    return check


def two_producers(code: Code, world: World) -> Check:
    """A second thread pushes into a ring that already has its producer.

    ACCEPTABLE  the second one fails with "a second producer"; the first one's items arrive.
    FORBIDDEN   the second one is let in, whatever comes of it.
    """
    ring = _ring_at(code, _Events, 2, 255)
    refused: list[str] = []

    def first() -> None:
        ring.push(1)
        world.turn("has pushed once")
        ring.push(2)

    def second() -> None:
        world.until(lambda: ring.tail.at != 255, "the first item")
        try:
            ring.push(9)
        except AssertionError as error:
            refused.append(str(error))

    world.spawn("first", first)
    world.spawn("second", second)

    def check() -> None:
        _free(ring)
        got = [ring.pop() for _ in range(3)]
        demand(got == [1, 2, None], f"1 and 2 are pushed by the owner, {got} are popped")
        demand("a second producer" in "".join(refused), "a second producer is let in")

    return check


# -- wake-ups ------------------------------------------------------------------------------------


def inbox(
    code: Code, world: World, *, producers: int, items: int, capacity: int, bad: int = 0
) -> Check:
    """Outboxes of several producers into one inbox; its thread sleeps whenever it may.

    A producer whose events did not fit flushes again, as every stage's loop does. The consumer
    fails once, over event `bad` if there is one, and goes on as a supervised stage does.

    ACCEPTABLE  every event is taken once, in its producer's order, and nobody sleeps meanwhile.
    FORBIDDEN   an event lost, repeated or reordered; a consumer asleep with an event in a ring.
    """
    box = code.wake.Inbox("consumer")
    ports = [box.port(f"producer {n}", capacity) for n in range(producers)]
    for n, port in enumerate(ports):
        code.name(port._ring, f"ring {n}" if producers > 1 else "ring")
    got: list[tuple[int, int]] = []

    def produce(n: int) -> None:
        port = ports[n]
        for number in range(items):
            port.put((n, number))
        while not port.flush():
            world.until(lambda: port._ring.depth() < capacity, "room, or its 20 ms")

    def consume() -> None:
        failed = not bad
        while len(got) < producers * items:
            box.wait(1.0)
            try:
                for event in box.events():
                    got.append(event)
                    if not failed and event[1] == bad - 1:
                        failed = True
                        raise ZeroDivisionError
            except ZeroDivisionError:
                world.turn("a defect: the stage goes on with its next turn")

    for n in range(producers):
        world.spawn(f"producer {n}" if producers > 1 else "producer", partial(produce, n))
    world.spawn("consumer", consume)

    def check() -> None:
        for n in range(producers):
            mine = [number for who, number in got if who == n]
            demand(mine == list(range(items)), f"producer {n} put {items} events, {mine} came")

    return check


def shutdown(code: Code, world: World, *, events: int, defect: bool) -> Check:
    """`Running.stop` against a stage that sleeps in its inbox, works, or has just raised.

    ACCEPTABLE  the stage ends, by `finish`, once.
    FORBIDDEN   it sleeps for ever, or the one who stops it does.
    """
    supervisor = code.stage("supervisor")
    box = code.wake.Inbox("stage")
    port = box.port("upstream")

    class Stage:
        name = "stage"
        on_call = None
        finished = 0

        def begin(self) -> None:
            pass

        def step(self) -> None:
            box.wait(1.0)
            for _ in box.events():
                if defect:
                    raise ZeroDivisionError

        def finish(self) -> None:
            self.finished += 1

    stage = Stage()
    running = supervisor.Running(stage, box.wake, None)

    def feed() -> None:
        for number in range(events):
            port.put(number)

    def stop() -> None:
        demand(running.stop(), "the stage is left behind")

    running.thread.spawned = world.spawn("stage", running._run)
    if events:
        world.spawn("upstream", feed)
    world.spawn("supervisor", stop)

    def check() -> None:
        demand(stage.finished == 1, f"finished {stage.finished} times")

    return check


# -- all of them ---------------------------------------------------------------------------------

_KINDS: Sequence[tuple[str, _Kind]] = (("audio", _Audio), ("events", _Events))


def _variants() -> list[Model]:
    made: list[Model] = []
    for title, kind in _KINDS:
        ring = partial(model, build=push_pop, kind=kind)
        made += [
            ring(f"push-pop/{title}", capacity=2, start=0, items=2, pops=2),
            ring(f"wrap/{title}-255", capacity=2, start=255, items=3, pops=2),
            ring(f"wrap/{title}-254", capacity=3, start=254, items=3, pops=2),
            ring(f"full/{title}-1", capacity=1, start=254, items=3, pops=2),
            ring(f"full/{title}-2", capacity=2, start=127, items=4, pops=2),
            ring(f"empty/{title}", capacity=2, start=128, items=2, pops=4),
            model(f"largest/{title}", largest, kind=kind),
            ring(f"deeper/{title}", capacity=3, start=253, items=5, pops=5, bound=2),
        ]
    made.append(model("skip-stale/one", skip_stale, capacity=3, start=254, keep=1))
    made.append(model("skip-stale/all", skip_stale, capacity=2, start=255, keep=0))
    made.append(model("two-producers/events", two_producers))
    made += [
        model("inbox/one", inbox, producers=1, items=3, capacity=2),
        model("inbox/kept", inbox, producers=1, items=3, capacity=1),
        model("inbox/two", inbox, producers=2, items=1, capacity=1),
        model("inbox/three", inbox, producers=3, items=1, capacity=1, bound=2),
        model("inbox/crowd", inbox, producers=4, items=6, capacity=2, samples=300),
        model("defect/first", inbox, producers=1, items=3, capacity=3, bad=1),
        model("defect/two", inbox, producers=2, items=2, capacity=2, bad=1, bound=1),
        model("shutdown/asleep", shutdown, events=0, defect=False),
        model("shutdown/working", shutdown, events=2, defect=False),
        model("shutdown/defect", shutdown, events=2, defect=True),
    ]
    return made


MODELS = _variants()
