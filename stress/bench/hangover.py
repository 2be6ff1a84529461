"""What the VAD's thresholds and its timer do alone: `bench endpoint --vad`.

Every prompt of 2 to 8 s is put on a line with a little noise and judged once by Silero; then the
product's own `SpeechMachine` runs over the judgements with other thresholds. A row says how many
prompts became two turns, and how long after the true end of speech the turn was over. The last
table is the onset: how long after the true start a talking agent would be paused, by threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from threadline.audio import mulaw
from threadline.audio.levels import speech_bounds
from threadline.config import Vad
from threadline.listening.silero import WINDOW
from threadline.listening.speech import FREE, TALKING, Onset, Over, SpeechMachine
from threadline.models.store import ModelStore

from .clips import load
from .pauses import judge

MS = 8  # samples
HANGOVERS = (320, 384, 416, 448, 512)
DROPS = (25.0, 30.0, 35.0, 40.0, 120.0)  # dB; 120: the level decides nothing
PAUSES = (0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Line:
    """One prompt on the line: what Silero and the level meter said of each window."""

    onset: int  # sample
    end: int
    judged: Sequence[tuple[float, float]]  # (probability, dBFS)


def report(console: Console) -> int:
    lines = _judge([one.pcm for one in load()])
    base = Vad()
    table = Table("drop dB", "hangover ms", "became two", "over after p50", "p95", box=None)
    for drop in DROPS:
        for hangover in HANGOVERS:
            config = replace(base, drop_db=drop, hangover_ms=hangover, probe_ms=160)
            split, delays = _turns(lines, config)
            mine = (drop, hangover) == (base.drop_db, base.hangover_ms)
            table.add_row(
                f"{drop:g}",
                str(hangover),
                f"{split} of {len(lines)}",
                *(f"{np.percentile(delays, q):.0f}" for q in (50, 95)),
                style="bold" if mine else "",
            )
    console.print(table)
    table = Table("pause threshold", "paused after p50", "p95", box=None)
    for threshold in PAUSES:
        delays = _onsets(lines, replace(base, pause_threshold=threshold))
        mine = threshold == base.pause_threshold
        table.add_row(
            f"{threshold:g}",
            *(f"{np.percentile(delays, q):.0f}" for q in (50, 95)),
            style="bold" if mine else "",
        )
    console.print(table)
    console.print("bold: the defaults. The true bounds are where the prompt exceeds -45 dBFS.")
    return 0


def _judge(prompts: Sequence[NDArray[np.int16]]) -> list[Line]:
    """A second of noise, the prompt, two more seconds, as mu-law; one batch for all."""
    random = np.random.default_rng(1)
    signals, bounds = [], []
    for pcm in prompts:
        first, last = speech_bounds(pcm, mulaw.RATE)
        quiet = random.normal(0, 10 ** (-65 / 20), 3 * mulaw.RATE).astype(np.float32)
        signal = np.concatenate([quiet[: mulaw.RATE], pcm / 32_768, quiet[mulaw.RATE :]])
        signals.append(mulaw.decode_float(mulaw.encode_float(signal.astype(np.float32))))
        bounds.append((mulaw.RATE + first, mulaw.RATE + last))
    longest = max(len(signal) for signal in signals)
    sheet = np.stack([np.pad(signal, (0, longest - len(signal))) for signal in signals])
    return [
        Line(*bound, row) for bound, row in zip(bounds, judge(sheet, ModelStore()), strict=True)
    ]


def _turns(lines: Sequence[Line], config: Vad) -> tuple[int, list[float]]:
    """Prompts that became more than one turn; ms from the true end to the last turn's end."""
    split, delays = 0, []
    for line in lines:
        machine, ends = SpeechMachine(config), []
        for window, (chance, level) in enumerate(line.judged, 1):
            events = machine.feed(chance, level, FREE, window)
            ends += [window for event in events if isinstance(event, Over)]
        split += len(ends) > 1
        delays += [(end * WINDOW - line.end) / MS for end in ends[-1:]]
    return split, delays


def _onsets(lines: Sequence[Line], config: Vad) -> list[float]:
    """ms from the true onset to the end of the window that pauses a talking agent."""
    delays = []
    for line in lines:
        machine = SpeechMachine(config)
        for window, (chance, level) in enumerate(line.judged, 1):
            events = machine.feed(chance, level, TALKING, window)
            if any(isinstance(event, Onset) for event in events):
                delays.append((window * WINDOW - line.onset) / MS)
                break
    return delays
