"""What the processes of one server tell each other: a page of shared memory, no locks.

`threadline serve --processes K` starts K processes that accept from one listening socket. Each
has a row here, which it alone writes: how many lines it has free, whether it is ready, and its
metrics. From the others' rows it knows whether to leave the next caller to a sibling, whether the
server as a whole is ready, and how it does. The parent (processes.py) clears the row of a process
that has died.

A number is one aligned store. A metrics page is longer than that, so it carries its checksum: a
reader that meets one half written keeps what it read before.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Sequence

PAGE_BYTES = 1 << 18
_FREE, _READY, _LIVE, _LENGTH, _CHECK = range(5)
_NUMBERS = 8
_ROW = _NUMBERS * 4 + PAGE_BYTES


class Siblings:
    """The rows; `mine` is written through this object, the others only read.

    Args:
        fd: of the shared memory: see `make`.
        count: processes.
        mine: which row is ours, from 0.
    """

    def __init__(self, fd: int, count: int, mine: int) -> None:
        self.count, self.mine = count, mine
        self._memory = mmap.mmap(fd, count * _ROW)
        self._view = memoryview(self._memory)
        self._rows = [self._view[row * _ROW :][:_ROW] for row in range(count)]
        self._numbers = [row[: _NUMBERS * 4].cast("i") for row in self._rows]
        self._pages: list[bytes] = [b""] * count

    @staticmethod
    def make(count: int) -> int:
        """Shared memory for so many processes, as a descriptor; children inherit it."""
        fd = os.memfd_create("threadline-siblings", 0)
        os.ftruncate(fd, count * _ROW)
        return fd

    def tell(self, free: int, live: int, *, ready: bool) -> None:
        """How many callers we would still take, how many we have, and whether we take any."""
        mine = self._numbers[self.mine]
        mine[_FREE], mine[_LIVE], mine[_READY] = free, live, int(ready)

    def publish(self, page: bytes) -> None:
        """Our metrics, for the others to show. One that is too long is left out."""
        page = page if len(page) <= PAGE_BYTES else b""
        mine, row = self._numbers[self.mine], self._rows[self.mine]
        mine[_LENGTH] = 0
        row[_NUMBERS * 4 : _NUMBERS * 4 + len(page)] = page
        mine[_CHECK] = zlib.crc32(page) - 2**31
        mine[_LENGTH] = len(page)

    def another_is_free(self) -> bool:
        """Some other process takes calls and has a line free."""
        return any(
            numbers[_READY] and numbers[_FREE] > 0
            for row, numbers in enumerate(self._numbers)
            if row != self.mine
        )

    def another_is_ready(self) -> bool:
        """Some other process takes calls, or would, had it a line free."""
        return any(numbers[_READY] for row, numbers in enumerate(self._numbers) if row != self.mine)

    def live(self) -> int:
        """Calls on the line, in all processes."""
        return sum(numbers[_LIVE] for numbers in self._numbers)

    def pages(self) -> Sequence[bytes]:
        """The metrics of every process, as last read whole; b"" of one that has none."""
        for row, numbers in enumerate(self._numbers):
            length = numbers[_LENGTH]
            page = bytes(self._rows[row][_NUMBERS * 4 :][: max(0, length)])
            if numbers[_CHECK] == zlib.crc32(page) - 2**31 or not length:
                self._pages[row] = page
        return self._pages

    def clear(self, row: int) -> None:
        """The parent: the process of this row is gone."""
        self._rows[row][:] = bytes(_ROW)

    def close(self) -> None:
        """Give the memory back."""
        for view in (*self._numbers, *self._rows, self._view):
            view.release()
        self._memory.close()
