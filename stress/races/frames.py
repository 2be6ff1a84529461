"""No record of a ring is lost, duplicated, reordered or torn.

One thread pushes numbered records as fast as it can, one pops them, on both kinds of ring.

ACCEPTABLE  `push` says False, and the ring counts it; `pop` says None although a push is under
            way; `skip_to` drops the oldest, and the ring counts them.
FORBIDDEN   a record whose number is not above all before it; one that is missing and was neither
            refused nor skipped; a payload or a header that is of two records at once; more in
            flight than there are cells; produced != consumed + refused + skipped + in flight.

Perturbed   capacities 1, 2, 3, 5, 127 and 128; cursors that begin next to the wrap; yields at
            every load and store of a cursor; anything of perturb.py.
Seed        draws the capacity, the cursors' start, the yields and the disturbances of a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from threadline.threads.calls import FRAME
from threadline.threads.ring import MODULUS, AudioRing, Cursor, EventRing

from ..bout import Bout, Crew
from ..perturb import Yields, cursor_at, disturbed, near_the_wrap

WHAT = "no record lost, duplicated, reordered or torn"
LIMIT = 240.0

CAPACITIES = (1, 2, 3, 5, 127, 128)
ROUNDS = 36
RECORDS = 12_000
_MASK = 0xFFFF_FFFF


def run(bout: Bout) -> None:
    for number in range(bout.many(ROUNDS)):
        capacity = CAPACITIES[number % len(CAPACITIES)]
        at = bout.rng.choice((0, near_the_wrap(bout.rng)))
        yielding = number // len(CAPACITIES) % 2 == 1
        # A store that yields costs a hundred times one that does not.
        cursor = Yields(bout, 0.02).cursor(at) if yielding else cursor_at(at)
        records = RECORDS // 10 if yielding else RECORDS
        race = _audio if number % 2 else _events
        bout.setting = (
            f"capacity {capacity}, cursors from {at}, {'yields' * yielding or 'no yields'}"
        )
        with disturbed(bout):
            race(bout, capacity, cursor, records)
        bout.count(rounds=1)


def _audio(bout: Bout, capacity: int, cursor: Callable[[], Cursor], records: int) -> None:
    ring = _started(AudioRing(capacity, FRAME, cursor=cursor))
    refused = skipped = 0
    seen: list[int] = []
    keep = bout.rng.choice((0, capacity, capacity))  # a third of the rounds prefer fresh audio
    done = False

    def produce() -> None:
        nonlocal refused, done
        for number in range(records):
            while not ring.push(number, ~number & _MASK, number, 7, number, _payload(number)):
                refused += 1
                time.sleep(0)
                if crew.over:
                    return
        done = True

    def consume() -> None:
        nonlocal skipped
        while not crew.over:
            ended = done
            if not keep:
                skipped += ring.skip_to(capacity // 2)
            header = ring.peek()
            record = ring.pop()
            if record is None:
                if ended:
                    return
                time.sleep(0)
                continue
            same = header is None or header == record[:5]  # None: it was pushed in between
            bout.expect(same, f"peek saw {header}, pop took {record[:5]}")
            number, inverse, tag, flags, stamp, payload = record
            whole = inverse == ~number & _MASK and tag == stamp == number and flags == 7
            bout.expect(whole, f"a torn header: {record[:5]}")
            bout.expect(payload == _payload(number), f"a torn payload in record {number}")
            _next(bout, seen, number, skips=not keep)

    crew = Crew(bout)
    crew.start("produce", produce)
    crew.start("consume", consume)
    crew.join("all audio has crossed the ring")
    bout.expect(refused == ring.refused, f"{refused} refused, but {ring.refused} counted")
    bout.expect(skipped == ring.skipped, f"{skipped} skipped, but {ring.skipped} counted")
    _account(bout, records, len(seen), skipped, ring.depth())
    bout.count(frames=records, refused=refused, skipped=skipped)


def _events(bout: Bout, capacity: int, cursor: Callable[[], Cursor], records: int) -> None:
    ring: EventRing[tuple[int, int]] = _started(EventRing(capacity, cursor=cursor))
    refused = 0
    seen: list[int] = []
    deepest = 0

    def produce() -> None:
        nonlocal refused
        for number in range(records):
            while not ring.push((number, ~number)):
                refused += 1
                time.sleep(0)
                if crew.over:
                    return

    def consume() -> None:
        nonlocal deepest
        while len(seen) < records and not crew.over:
            deepest = max(deepest, ring.ready())
            event = ring.pop()
            if event is None:
                time.sleep(0)
                continue
            bout.expect(event[1] == ~event[0], f"half an event: {event}")
            _next(bout, seen, event[0], skips=False)

    crew = Crew(bout)
    crew.start("produce", produce)
    crew.start("consume", consume)
    crew.join("all events have crossed the ring")
    bout.expect(refused == ring.refused, f"{refused} refused, but {ring.refused} counted")
    bout.expect(deepest <= capacity, f"{deepest} events in {capacity} cells")
    _account(bout, records, len(seen), 0, ring.depth())
    bout.count(events=records, refused=refused)


def _started[Ring: (AudioRing, EventRing[tuple[int, int]])](ring: Ring) -> Ring:
    """Both sides believe what they would, had the ring come this far by itself."""
    ring._head_seen = ring._tail_seen = ring.head.at % MODULUS
    return ring


def _next(bout: Bout, seen: list[int], number: int, *, skips: bool) -> None:
    last = seen[-1] if seen else -1
    order = number > last if skips else number == last + 1
    bout.expect(order, f"record {number} came after record {last}")
    seen.append(number)


def _account(bout: Bout, produced: int, consumed: int, skipped: int, in_flight: int) -> None:
    bout.expect(
        produced == consumed + skipped + in_flight,
        f"{produced} produced, but {consumed} consumed + {skipped} skipped + {in_flight} in flight",
    )


def _payload(number: int) -> bytes:
    return number.to_bytes(4, "little") * (FRAME // 4)
