"""Audio that says whose it is: 160 bytes of 20 ms are one label, five times over.

The label is written in hexadecimal, so that it survives being samples on the way: mu-law has one
code, 0x7F, that comes back as another.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from threadline.threads.calls import FRAME

_LABEL = Struct("<IIII")
_SIZE = 2 * _LABEL.size
_TIMES = FRAME // _SIZE


class Label(NamedTuple):
    """Of one frame. `number` counts the frames of an epoch, or those that a phone has sent."""

    call: int
    epoch: int
    clause: int
    number: int


def frame(call: int, epoch: int, clause: int, number: int) -> bytes:
    """20 ms of audio with this label."""
    return _LABEL.pack(call, epoch, clause, number).hex().encode() * _TIMES


def read(payload: bytes) -> Label | None:
    """The label; None when the payload is no single frame, whole and in one piece."""
    label = payload[:_SIZE]
    if len(payload) != FRAME or label * _TIMES != payload:
        return None
    try:
        return Label(*_LABEL.unpack(bytes.fromhex(label.decode())))
    except ValueError:
        return None
