"""Two threads of the machine on one ring, for a moment: the tier between explorer and stress.

`race` takes the ring module to use, so that a changed copy can be raced as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

PAYLOAD = 64
STALLED = 4.0
"""Seconds without progress on either side: the ring is stuck."""


class Wrong(AssertionError):  # noqa: N818  # "Error" would say less
    """What came out is not what went in."""


def _audio(number: int) -> tuple[Any, ...]:
    return number, number, number, number & 0xFFFF, number, bytes((number & 0xFF,)) * PAYLOAD


def _rings(module: Any) -> Iterator[tuple[Any, Callable[[int], bool], Callable[[int], Any]]]:
    """(ring, how to push a number, what must be popped for it)."""
    for capacity in (1, 2, 3):
        audio = module.AudioRing(capacity, PAYLOAD)
        events = module.EventRing(capacity)
        for ring in (audio, events):
            ring.head.at = ring.tail.at = ring._head_seen = ring._tail_seen = 250
        yield audio, lambda n, ring=audio: ring.push(*_audio(n)), _audio  # type: ignore[misc]
        yield events, lambda n, ring=events: ring.push(("event", n)), lambda n: ("event", n)  # type: ignore[misc]


class _Lane:
    """One producer and one consumer, until a deadline or a failure."""

    def __init__(self, ring: Any, push: Callable[[int], bool], item: Callable[[int], Any]) -> None:
        self.ring, self.push, self.item = ring, push, item
        self.over = False
        self.failure = ""
        self.popped = 0

    def produce(self) -> None:
        number = 0
        while not self.over:
            if self.push(number):
                number += 1
            else:
                time.sleep(0)  # or a machine with one core would show little

    def consume(self) -> None:
        ring, number = self.ring, 0
        while not self.over:
            got = ring.pop()
            if got is None:
                time.sleep(0)
            else:
                if got != self.item(number):
                    raise Wrong(f"item {number} comes out as {got!r:.80}")
                number += 1
                self.popped = number

    def guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  # it is the finding
                self.failure = self.failure or f"{type(error).__name__}: {error}"
                self.over = True

        return run


def race(module: Any, seconds: float) -> tuple[str, int]:
    """(the first failure or nothing, items that got through). Takes `seconds` at most."""
    end = time.monotonic() + seconds
    items = 0
    while True:
        for ring, push, item in _rings(module):
            lane = _Lane(ring, push, item)
            threads = [
                threading.Thread(target=lane.guarded(work), daemon=True)
                for work in (lane.produce, lane.consume)
            ]
            for thread in threads:
                thread.start()
            _wait(lane, min(0.1, seconds / 6))
            lane.over = True
            for thread in threads:
                thread.join()
            items += lane.popped
            if lane.failure:
                return f"{lane.failure} (capacity {ring.capacity})", items
        if time.monotonic() > end:
            return "", items


def _wait(lane: _Lane, seconds: float) -> None:
    """Let it run so long; longer when nothing came through yet, to tell slow from stuck."""
    began = time.monotonic()
    while not lane.over and (now := time.monotonic() - began) < STALLED:
        if lane.popped > 3 * lane.ring.capacity and now > seconds:
            return
        time.sleep(0.002)
    if not lane.over and lane.popped <= 3 * lane.ring.capacity:
        lane.failure = f"stuck after {lane.popped} items"
