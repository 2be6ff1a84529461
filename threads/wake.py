"""How a thread sleeps, and how others wake it: one eventfd and one ring per upstream thread.

The rule that makes a lost wake-up impossible
    A producer pushes first and writes the eventfd second, always. A consumer reads the eventfd
    first and drains every ring second. Whatever is pushed after a drain is followed by a write
    that the next `wait` sees. Writing "only when the ring was empty" would save a system call
    and lose wake-ups: between a store and a later load neither side has any order to lean on.

An eventfd round trip between two threads costs 4.4 us here; a threading.Lock costs 87.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from .awake import Awake
from .ring import MAX_CAPACITY, EventRing


class Overflow(RuntimeError):  # noqa: N818  # "Error" would say less
    """An event could not be delivered for so long that its backlog is full: a stage is stuck."""


class Outbox[Event]:
    """The producer's end of an event ring whose policy is: never drop.

    What does not fit stays here, in order, and goes first next time. `stalls` counts how often
    that happened; a backlog beyond `limit` raises `Overflow` for the call the event is about.
    Used by one thread.
    """

    __slots__ = ("_inbox", "_kept", "_limit", "_ring", "name", "stalls")

    def __init__(self, name: str, ring: EventRing[Event], inbox: Inbox, limit: int) -> None:
        self.name = name
        self.stalls = 0
        self._ring = ring
        self._inbox = inbox
        self._limit = limit
        self._kept: deque[Event] = deque()

    def put(self, event: Event) -> None:
        """Deliver, or keep for later; wake the consumer either way."""
        if (self._kept and not self.flush()) or not self._ring.push(event):
            if len(self._kept) >= self._limit:
                raise Overflow(f"{self.name}: {self._limit} events wait for a stage that is stuck")
            self.stalls += 1
            self._kept.append(event)
        self._inbox.wake()

    def flush(self) -> bool:
        """Push what was kept. True when nothing is left; call it once per turn of the loop."""
        while self._kept:
            if not self._ring.push(self._kept[0]):
                self._inbox.wake()
                return False
            self._kept.popleft()
            self._inbox.wake()
        return True

    def wake(self) -> None:
        """Wake the consumer: there is something for it elsewhere, in a ring of its own."""
        self._inbox.wake()

    def depth(self) -> int:
        """Events on their way, for reports."""
        return self._ring.depth() + len(self._kept)


class Inbox:
    """What one thread sleeps on. Made, with all its ports, before that thread starts.

    `wake` may be called from any thread; everything else belongs to the thread that waits.
    """

    __slots__ = ("_fd", "_ports", "_ready", "awake", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.awake = Awake()  # the owner; watch reads it
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready = select.poll()
        self._ready.register(self._fd, select.POLLIN)
        self._ports: list[EventRing[object]] = []

    def port[Event](
        self, producer: str, capacity: int = MAX_CAPACITY, limit: int = 4096
    ) -> Outbox[Event]:
        """A ring from one more upstream thread, called `producer`, into this inbox."""
        ring: EventRing[Event] = EventRing(capacity)
        self._ports.append(ring)  # type: ignore[arg-type]  # read back as object, in `events`
        return Outbox(f"{producer} -> {self.name}", ring, self, limit)

    def wake(self) -> None:
        """Any thread: there may be something to do."""
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout: float) -> bool:
        """Sleep until somebody wrote, a watched descriptor is ready, or `timeout` s are over."""
        self.awake.sleeps()
        woken = bool(self._ready.poll(timeout * 1000))
        self.awake.wakes()
        self.clear()
        return woken

    def nap(self, seconds: float) -> None:
        """Sleep for so long whoever wakes us, and take no wake-up."""
        self.awake.sleeps()
        time.sleep(seconds)
        self.awake.wakes()

    def clear(self) -> None:
        """Take the wake-ups, before the rings are drained. For loops that poll `fileno`."""
        with suppress(BlockingIOError):  # woken by a time-out or by a watched descriptor
            os.eventfd_read(self._fd)

    def events(self) -> Iterator[object]:
        """Drain every port, at most one ringful each, so that one flood cannot starve the rest."""
        drained = False
        try:
            for ring in self._ports:
                for _ in range(ring.capacity):
                    event = ring.pop()
                    if event is None:
                        break
                    yield event
                else:
                    self.wake()  # there may be more; the eventfd has already been read
            drained = True
        finally:
            if not drained:
                self.wake()  # whoever takes the events has failed over one: the rest still waits

    def fileno(self) -> int:
        """The eventfd, for an event loop's reader."""
        return self._fd

    def watch(self, fd: int) -> None:
        """Let `wait` return when `fd` is readable, too."""
        self._ready.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Undo `watch`."""
        self._ready.unregister(fd)

    def depth(self) -> int:
        """Events waiting, for reports."""
        return sum(ring.depth() for ring in self._ports)

    def close(self) -> None:
        """After the threads on both ends have been joined."""
        os.close(self._fd)
