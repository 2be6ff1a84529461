"""Tones of the telephone network, for when there is no voice.

The reorder tone ("fast busy", what a network plays for a call that cannot go on) is that of
North America: 480 Hz and 620 Hz together, 250 ms on and 250 ms off, each at -24 dBm0. Cadence
and frequencies: ITU-T E.180, supplement 2 (congestion tone, United States); level: ANSI T1.401.
"""

from __future__ import annotations

import numpy as np

from . import mulaw

_HERTZ = (480.0, 620.0)
_ON = _OFF = mulaw.RATE // 4
_LEVEL_DBM0 = -24.0
_FULL_SCALE_DBM0 = 3.17  # of a sine at mu-law's largest code (ITU-T G.711)


def reorder(beeps: int = 4) -> bytes:
    """So many beeps and the pauses after them, as whole mu-law frames."""
    at = np.arange(_ON) / mulaw.RATE
    loud = 10 ** ((_LEVEL_DBM0 - _FULL_SCALE_DBM0) / 20)
    beep = loud * np.sin(2 * np.pi * np.outer(_HERTZ, at)).sum(axis=0)
    one = mulaw.encode_float(beep.astype(np.float32)) + mulaw.SILENCE_BYTE * _OFF
    codes = one * beeps
    return codes + mulaw.SILENCE_BYTE * (-len(codes) % mulaw.FRAME)
