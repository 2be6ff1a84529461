"""Ways to end a turn, and what comes of each in the pauses of `pauses.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from threadline.config import Endpoint
from threadline.listening.endpoint import Decision, decide
from threadline.listening.speech import WINDOW_MS, silent_windows

from .pauses import ENDS, Kind, Pause

Way = Callable[[Pause], Decision]
"""How to end a turn: the silence it wants in a pause."""


@dataclass(frozen=True)
class Outcome:
    """What came of one way to end turns."""

    cut: dict[Kind, float]  # share of pauses after which the caller would have been cut off
    waits: Mapping[Kind, Sequence[float]]  # ms from the true end to the decision
    split: float  # share of the prompts of 2 s and more, as recorded, that became two turns

    def wait(self, quantile: float, kind: Kind = "end") -> float:
        return float(np.percentile(self.waits[kind], 100 * quantile))

    def mean(self, kind: Kind = "end") -> float:
        return float(np.mean(self.waits[kind]))


def timer(ms: int) -> Way:
    return lambda pause: Decision(ms, "silence")


def sound(config: Endpoint, probe: int) -> Way:
    """Smart Turn alone, asked after so much silence."""
    return lambda pause: decide(config, pause.chances[probe], None)


def sound_and_words(config: Endpoint, probe: int) -> Way:
    return lambda pause: decide(config, pause.chances[probe], pause.text)


def outcome(pauses: Sequence[Pause], way: Way) -> Outcome:
    cut: dict[Kind, list[bool]] = {}
    waits: dict[Kind, list[float]] = {}
    split: dict[str, bool] = {}
    for pause in pauses:
        needed = silent_windows(way(pause).silence_ms)
        if pause.kind in ENDS:
            waits.setdefault(pause.kind, []).append(pause.late + needed * WINDOW_MS)
        else:
            cut.setdefault(pause.kind, []).append(pause.silence >= needed)
        if not pause.made and pause.kind in ("inside", "between", "end"):
            over = pause.kind != "end" and pause.silence >= needed
            split[pause.name] = split.get(pause.name, False) or over
    shares = {kind: float(np.mean(those)) for kind, those in cut.items()}
    return Outcome(shares, waits, float(np.mean([*split.values()])))
