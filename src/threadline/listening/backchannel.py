"""Is it an interruption? What the words of speech over a talking agent say about it."""

from __future__ import annotations

from enum import Enum, auto


class Barge(Enum):
    """What speech over a talking agent is."""

    NOTHING = auto()  # no words: a cough, a door
    BACKCHANNEL = auto()  # "uh-huh": go on talking
    WORDS = auto()  # the caller wants the floor
    STOP = auto()  # "stop", "wait", "no": at once
