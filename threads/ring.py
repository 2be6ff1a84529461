"""Bounded rings between exactly two threads: one pushes, one pops, neither waits.

Theory of operation
    A ring is a row of cells and two cursors. `tail` counts what was pushed and only the producer
    stores it; `head` counts what was popped and only the consumer stores it. Cells
    [head, tail) belong to the consumer, the others to the producer. A cell changes hands by one
    store to one cursor, and by nothing else:

        producer                                consumer
        1 is there room?  (load head)           1 is there anything?  (load tail)
        2 write the cell                        2 copy the cell out
        3 store tail + 1    -- publishes -->    3 store head + 1    -- gives the cell back -->

Why that is enough without a lock of ours
    A cursor is an object with one slot. On free-threaded CPython 3.14 the store of a slot is a
    release and its load is at least an acquire, so what was written in step 2 is visible to
    whoever has seen the result of step 3, on ARM as well as on x86. This is how the interpreter
    behaves, not what its manual promises: pyproject.toml pins the minor version. The interpreter
    takes the object's own lock inside each store, so call this a lock-free algorithm over the
    interpreter's per-object locks. That lock is contended by nobody: each cursor has one writer.

Why the cursors wrap at 256
    The ints -5..256 are immortal: another thread reads them without touching a reference count.
    A larger int made by another thread costs a lock on every read (27 ns instead of 2). With at
    most 128 cells, tail - head modulo 256 always tells full from empty.

What happens when it is full
    `push` says False and counts it; the caller decides. Three policies are in use, each named
    where its ring is made (calls.py, wake.py): caller audio prefers fresh (`skip_to`), events
    never drop (`Outbox`), outgoing audio is withheld by the producer until there is room.

Cursor, cell and arena types are parameters so that a scheduler can stand between any two
accesses to shared memory; production code passes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from struct import Struct
from threading import get_ident
from typing import Protocol

MODULUS = 256
MAX_CAPACITY = MODULUS // 2
_WRAP = MODULUS - 1

Record = tuple[int, int, int, int, int, bytes]
"""(generation, epoch, tag, flags, stamp in ns, payload): what `AudioRing.pop` returns."""

_HEADER = Struct("<IIIHHQ")  # generation, epoch, tag, flags, payload length, stamp


class Cursor:
    """A count modulo 256. Stored by one thread, which publishes; loaded by the other."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0


class Owner:
    """The one thread that may use this side of a ring. Asserted, so free under ``python -O``."""

    __slots__ = ("_ident",)

    def __init__(self) -> None:
        self._ident = 0

    def here(self) -> bool:
        """True on the owning thread. The first thread to ask becomes the owner."""
        me = get_ident()
        if self._ident == 0:
            self._ident = me
        return self._ident == me

    def release(self) -> None:
        """Let another thread take over, once this one has been joined (tests, restarts)."""
        self._ident = 0


class Arena(Protocol):
    """Cells of raw bytes, as one side of an `AudioRing` sees them."""

    def write(
        self,
        cell: int,
        generation: int,
        epoch: int,
        tag: int,
        flags: int,
        stamp: int,
        payload: bytes,
    ) -> None:
        """Fill one cell."""

    def read(self, cell: int) -> Record:
        """Copy one cell out."""

    def header(self, cell: int) -> tuple[int, int, int, int, int]:
        """(generation, epoch, tag, flags, stamp) of one cell."""


class _View:
    """One thread's own view of an arena: nothing about it is shared but the bytes.

    Plain copies with no memory order of their own; the cursors give them one.
    """

    __slots__ = ("_bytes", "_pack", "_stride", "_unpack")

    def __init__(self, arena: bytearray, cell: Struct) -> None:
        self._bytes = memoryview(arena)
        self._stride = cell.size
        # One call for header and payload: slicing the view costs more than all the rest.
        self._pack = cell.pack_into
        self._unpack = cell.unpack_from

    def write(
        self,
        cell: int,
        generation: int,
        epoch: int,
        tag: int,
        flags: int,
        stamp: int,
        payload: bytes,
    ) -> None:
        at, size = cell * self._stride, len(payload)
        self._pack(self._bytes, at, generation, epoch, tag, flags, size, stamp, payload)

    def read(self, cell: int) -> Record:
        at = cell * self._stride
        generation, epoch, tag, flags, size, stamp, payload = self._unpack(self._bytes, at)
        return generation, epoch, tag, flags, stamp, payload[:size]

    def header(self, cell: int) -> tuple[int, int, int, int, int]:
        generation, epoch, tag, flags, _, stamp = _HEADER.unpack_from(
            self._bytes, cell * self._stride
        )
        return generation, epoch, tag, flags, stamp


class _Spsc:
    """The index protocol, shared by both rings. Fields are grouped by the thread that writes."""

    __slots__ = (
        "_consumer",
        "_head_seen",
        "_mask",
        "_producer",
        "_tail_seen",
        "capacity",
        "head",
        "refused",
        "tail",
    )

    def __init__(self, capacity: int, cursor: Callable[[], Cursor]) -> None:
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"a ring holds 1 to {MAX_CAPACITY} cells, not {capacity}")
        self.capacity = capacity
        # Cells are a power of two, so that the wrap at 256 falls on a cell boundary even when
        # the capacity does not divide 256; `capacity` alone decides what counts as full.
        self._mask = (1 << (capacity - 1).bit_length()) - 1
        # Written by the producer:
        self.tail = cursor()
        self._head_seen = 0  # the last head it looked up: stale means fewer free cells, never more
        self._producer = Owner()
        self.refused = 0
        # Written by the consumer:
        self.head = cursor()
        self._tail_seen = 0  # the last tail it looked up: stale means less to read, never more
        self._consumer = Owner()

    # `push` and `pop` ask the cached cursor in place and come here only when it says full or
    # empty: a call costs as much as the rest of them.

    def room(self) -> int:
        """Producer thread only. Free cells, at least; exact when it returns 0."""
        used = (self.tail.at - self._head_seen) & _WRAP
        if used == self.capacity:
            self._head_seen = self.head.at
            used = (self.tail.at - self._head_seen) & _WRAP
        return self.capacity - used

    def ready(self) -> int:
        """Consumer thread only. Cells that can be popped, at least; exact when it returns 0."""
        waiting = (self._tail_seen - self.head.at) & _WRAP
        if waiting == 0:
            self._tail_seen = self.tail.at
            waiting = (self._tail_seen - self.head.at) & _WRAP
        return waiting

    def backlog(self) -> int:
        """Consumer thread only. All that was published by now: a fresh look at the tail."""
        self._tail_seen = self.tail.at
        return (self._tail_seen - self.head.at) & _WRAP

    def depth(self) -> int:
        """Any thread, for reports: a momentary guess that may already be wrong."""
        return (self.tail.at - self.head.at) & _WRAP


class AudioRing(_Spsc):
    """Fixed-size audio records in one preallocated arena; no Python object lives in it.

    Args:
        capacity: records, 1 to 128.
        payload: bytes a record can carry (160 is 20 ms of mu-law at 8 kHz).
        arena: makes one side's view of ``cells`` cells of ``payload`` bytes; called once for
            each side, on that side's own thread.
    """

    __slots__ = ("_arena", "_in", "_out", "payload", "skipped")

    def __init__(
        self,
        capacity: int,
        payload: int,
        *,
        cursor: Callable[[], Cursor] = Cursor,
        arena: Callable[[], Arena] | None = None,
    ) -> None:
        super().__init__(capacity, cursor)
        self.payload = payload
        cell = Struct(f"{_HEADER.format}{payload}s{-payload % 8}x")  # a multiple of 8 bytes
        cells = bytearray(cell.size * (self._mask + 1))
        self._arena = arena or (lambda: _View(cells, cell))
        self._in: Arena | None = None  # the producer's view, made by the producer
        self._out: Arena | None = None  # the consumer's view, made by the consumer
        self.skipped = 0  # written by the consumer

    def push(
        self, generation: int, epoch: int, tag: int, flags: int, stamp: int, payload: bytes
    ) -> bool:
        """Producer thread only. False when full, counted in `refused`; never blocks.

        `payload` is copied; at most ``self.payload`` bytes (ValueError beyond).
        """
        assert self._producer.here(), f"{self!r}: a second producer"
        if len(payload) > self.payload:
            raise ValueError(f"a record carries {self.payload} bytes, not {len(payload)}")
        tail = self.tail.at
        if (tail - self._head_seen) & _WRAP == self.capacity and not self.room():
            self.refused += 1
            return False
        view = self._in
        if view is None:
            view = self._in = self._arena()
        view.write(tail & self._mask, generation, epoch, tag, flags, stamp, payload)
        self.tail.at = (tail + 1) & _WRAP  # publishes the cell: nothing of it may follow
        return True

    def pop(self) -> Record | None:
        """Consumer thread only. The oldest record, copied out; None when empty."""
        assert self._consumer.here(), f"{self!r}: a second consumer"
        head = self.head.at
        if head == self._tail_seen and not self.ready():
            return None
        view = self._out
        if view is None:
            view = self._out = self._arena()
        record = view.read(head & self._mask)
        self.head.at = (head + 1) & _WRAP  # gives the cell back: the copy is complete
        return record

    def peek(self) -> tuple[int, int, int, int, int] | None:
        """Consumer thread only. The oldest record's header, left in place; None when empty."""
        assert self._consumer.here(), f"{self!r}: a second consumer"
        if not self.ready():
            return None
        view = self._out
        if view is None:
            view = self._out = self._arena()
        return view.header(self.head.at & self._mask)

    def skip_to(self, keep: int) -> int:
        """Consumer thread only. Prefer fresh: drop the oldest until `keep` are left.

        Only the consumer may move the head, so a producer can never do this for it.
        Returns how many were dropped; they are counted in `skipped`.
        """
        assert self._consumer.here(), f"{self!r}: a second consumer"
        stale = self.backlog() - keep
        if stale <= 0:
            return 0
        self.head.at = (self.head.at + stale) & _WRAP
        self.skipped += stale
        return stale


class EventRing[Event](_Spsc):
    """Small frozen events, one per list cell. The list is made once and never resized."""

    __slots__ = ("_cells",)

    def __init__(
        self,
        capacity: int = MAX_CAPACITY,
        *,
        cursor: Callable[[], Cursor] = Cursor,
        cells: Callable[[int], MutableSequence[Event | None]] = lambda n: [None] * n,
    ) -> None:
        super().__init__(capacity, cursor)
        self._cells = cells(self._mask + 1)

    def push(self, event: Event) -> bool:
        """Producer thread only. False when full, counted in `refused`; never blocks."""
        assert self._producer.here(), f"{self!r}: a second producer"
        tail = self.tail.at
        if (tail - self._head_seen) & _WRAP == self.capacity and not self.room():
            self.refused += 1
            return False
        self._cells[tail & self._mask] = event
        self.tail.at = (tail + 1) & _WRAP  # publishes the cell
        return True

    def pop(self) -> Event | None:
        """Consumer thread only. The oldest event; None when empty."""
        assert self._consumer.here(), f"{self!r}: a second consumer"
        head = self.head.at
        if head == self._tail_seen and not self.ready():
            return None
        cell = head & self._mask
        event = self._cells[cell]
        self._cells[cell] = None  # a consumed event must not live until the ring comes round
        self.head.at = (head + 1) & _WRAP  # gives the cell back
        return event
