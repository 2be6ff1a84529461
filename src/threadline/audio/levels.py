"""How loud sound is, and where it begins and ends.

Levels are dBFS of the root mean square: 0 dBFS is a full-scale square wave, a full-scale sine
is -3, comfortable telephone speech about -25, line noise below -55.
"""

from __future__ import annotations

from collections.abc import Buffer

import numpy as np
from numpy.typing import NDArray

from . import mulaw

SILENT_DB = -120.0  # what dead silence is given instead of minus infinity
_WINDOW = 0.010  # seconds; short enough to place an edge, long enough for a voice's pitch
_QUIET_PEAK = 256  # int16: -42 dBFS, above a line's noise and below the softest vowel
# For ``bytes.translate``: maps loud codes to 1 and deletes quiet ones. A few loud samples in a
# frame are a click; a frame of speech has dozens.
_QUIET = bytes(code for code in range(256) if abs(int(mulaw.DECODE[code])) < _QUIET_PEAK)
_LOUD_SAMPLES = 8

type Samples = NDArray[np.int16] | NDArray[np.float32]


def _unit(samples: Samples) -> NDArray[np.float32]:
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32_768)
    return samples.astype(np.float32, copy=False)


def rms(samples: Samples) -> float:
    """Root mean square of int16[n] or float32[n], where 1.0 is full scale; 0 for no samples."""
    unit = _unit(samples)
    return float(np.sqrt(np.dot(unit, unit) / len(unit))) if len(unit) else 0.0


def dbfs(samples: Samples) -> float:
    """The level of int16[n] or float32[n], in dB under full scale; at least ``SILENT_DB``."""
    return max(SILENT_DB, 20 * float(np.log10(max(rms(samples), 1e-9))))


def block_dbfs(samples: Samples, size: int) -> NDArray[np.float32]:
    """The level of each block of ``size`` samples, the last one shorter: float32[ceil(n/size)]."""
    if not len(samples):
        return np.zeros(0, np.float32)
    power = np.square(_unit(samples))
    starts = np.arange(0, len(power), size)
    counts = np.diff(np.append(starts, len(power)))
    mean = np.add.reduceat(power, starts) / counts
    floor = 10 ** (SILENT_DB / 10)
    return (10 * np.log10(np.maximum(mean, floor))).astype(np.float32)


def speech_bounds(samples: Samples, rate: int, *, floor_db: float = -45.0) -> tuple[int, int]:
    """Where audible sound begins and ends, as ``samples[first:last]``; (0, 0) when there is none.

    Sound is any 10 ms above ``floor_db``; the edges are exact to one such window.
    """
    size = max(1, round(rate * _WINDOW))
    loud = np.flatnonzero(block_dbfs(samples, size) > floor_db)
    if not len(loud):
        return 0, 0
    return int(loud[0]) * size, min(len(samples), (int(loud[-1]) + 1) * size)


def shorten_pauses[Sound: (NDArray[np.int16], NDArray[np.float32])](
    samples: Sound, rate: int, longest_ms: int, *, floor_db: float = -45.0
) -> Sound:
    """A copy in which no pause is longer; what is quieter than ``floor_db`` for 10 ms is one."""
    size = max(1, round(rate * _WINDOW))
    kept, quiet = [], 0
    for number, level in enumerate(block_dbfs(samples, size)):
        quiet = quiet + 1 if level <= floor_db else 0
        if quiet * _WINDOW * 1e3 <= longest_ms:
            kept.append(samples[number * size : (number + 1) * size])
    return np.concatenate(kept) if kept else samples[:0].copy()


def audible(codes: Buffer) -> bool:
    """Whether a mu-law frame carries something a person would hear, not noise or one click."""
    return len(bytes(codes).translate(None, _QUIET)) >= _LOUD_SAMPLES
