"""What the callers of a capacity run say."""

from __future__ import annotations

from dataclasses import replace

from threadline.models.piper import PiperVoice
from threadline.wire.script import Clip

from ..bench.cascade import without_pauses
from ..bench.phone import spoken
from ..bench.turns import people

LINES = ("What are your opening hours?", "Hello.")


def line(speaker: PiperVoice) -> Clip:
    """Something of two seconds that is one turn: no pause in it ends one."""
    spoken_ones = [spoken(speaker, text, "line") for text in LINES]
    return replace(without_pauses([*people(speaker), *spoken_ones])[0], name="line")


def cut(speaker: PiperVoice) -> Clip:
    """What an answer is cut into with."""
    return spoken(speaker, "Wait a moment, please.", "cut")
