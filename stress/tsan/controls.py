"""Planted races. Each must be reported, or a clean result of the other programs says nothing.

The two that reorder a ring's steps change the text of production code, so they fail loudly when
that text is no longer there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from threadline.threads import ring as production
from threadline.threads.ring import AudioRing, Cursor

from ..bout import Bout
from .programs import PAYLOAD, audio_rounds


@dataclass(frozen=True, slots=True)
class Control:
    """`program` has the race; a report of it names one of the C functions `seen_in`."""

    program: Callable[[Bout], None]
    seen_in: tuple[str, ...]


class MemoryviewCursor(Cursor):
    """The count in a byte behind a memoryview, which the interpreter copies without any order."""

    __slots__ = ("_cell",)

    def __init__(self) -> None:
        self._cell = memoryview(bytearray(1))

    @property
    def at(self) -> int:
        return self._cell[0]

    @at.setter
    def at(self, value: int) -> None:
        self._cell[0] = value


def swapped(first: str, second: str) -> Callable[[int], AudioRing]:
    """Makes rings of production code in which a step `first` and the next, `second`, trade places.

    Each is the beginning of a line.
    """
    path = Path(str(production.__file__))
    pattern = rf"^( +{re.escape(first)}.*\n)( +{re.escape(second)}.*\n)"
    text, count = re.subn(pattern, r"\2\1", path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise LookupError(f"ring.py has {count} places where {first!r} comes before {second!r}")
    module = ModuleType("planted_ring")
    module.__package__ = production.__package__
    exec(compile(text, f"{path.name}, planted", "exec"), module.__dict__)

    def make(capacity: int) -> AudioRing:
        made = module.AudioRing(capacity, PAYLOAD)
        assert not isinstance(made, AudioRing), "not production code any more"
        return made  # type: ignore[no-any-return]  # the planted module has no types

    return make


def memoryview_cursor(bout: Bout) -> None:
    """Indices that publish nothing: the cells are unordered, and so are they themselves."""

    def make(capacity: int) -> AudioRing:
        return AudioRing(capacity, PAYLOAD, cursor=MemoryviewCursor)

    audio_rounds(bout, make, checked=False)


def publish_before_write(bout: Bout) -> None:
    """The consumer may read the cell while it is written."""
    audio_rounds(bout, swapped("view.write(", "self.tail.at = "), checked=False)


def advance_before_read(bout: Bout) -> None:
    """The producer may overwrite the cell while it is read."""
    audio_rounds(bout, swapped("record = view.read(", "self.head.at = "), checked=False)


_CELL = ("s_unpack_internal", "s_pack_internal")

CONTROLS: dict[str, Control] = {
    "memoryview cursor": Control(memoryview_cursor, ("unpack_single", "pack_single")),
    "cells behind it": Control(memoryview_cursor, _CELL),  # hidden, but for counts.py
    "publish before write": Control(publish_before_write, _CELL),
    "advance before read": Control(advance_before_read, _CELL),
}
