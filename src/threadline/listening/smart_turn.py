"""Smart Turn v3.2: has the caller finished? The probability, from how the turn sounds.

The network is the encoder of Whisper tiny with a classifier on top. It hears 8 s at 16 kHz: the
end of the turn at the end, zeros in front of a shorter one. What it is given is Whisper's log-mel
spectrogram with one difference: the waveform, padding included, is first brought to zero mean and
unit variance.

The silence at the end of the turn matters. It was trained on turns with a little of it, so a
judgement asked for at the last syllable is a worse one (docs/endpointing.md).

A judgement of 8 s costs about 30 ms of one core here, 1.5 of them for the features, and a batch
saves nothing: four cost four times as much.

Not thread-safe: one thread owns a `SmartTurn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from os import PathLike

import numpy as np
import onnxruntime
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..errors import ModelError

RATE = 8_000
"""Samples a second of what `SmartTurn.judge` takes."""

LONGEST = 8 * RATE
"""Samples of a turn that are looked at: its last ones."""

MELS = 80
FRAMES = 800

_WIDE = 16_000  # samples a second that the network was trained on
_FFT, _HOP = 400, 160  # samples
_SAMPLES = FRAMES * _HOP
_VARIANCE_FLOOR = 1e-7  # of the waveform: digital silence is not divided by zero
_POWER_FLOOR = 1e-10
_RANGE = 8.0  # decades below the loudest cell; what is softer counts as that


class SmartTurn:
    """The network (9 MB). ``threads`` are the cores that one batch may use.

    ``path`` is the file of the model store. Raises ModelError when it is absent or damaged.
    """

    __slots__ = ("_session",)

    def __init__(self, path: str | PathLike[str], threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning pool burns a core between two turns, on a machine that other stages share.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no nearer base
            raise ModelError(
                f"{path}: is absent or damaged: run `threadline models fetch smart-turn`."
            ) from error

    def judge(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The probability, 0..1, that each of these B turns is complete: (B,).

        A turn is (n,) samples in -1..1 at 8 kHz, this turn's only, with the silence that followed
        it. Of more than 8 s the last 8 count.
        """
        if not batch:
            return np.zeros(0, np.float32)
        seen = np.stack([features(turn) for turn in batch])
        (probability,) = self._session.run(None, {"input_features": seen})
        return probability[:, 0]  # type: ignore[no-any-return]  # onnxruntime ships no types


def features(turn: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network sees of one turn, as in `SmartTurn.judge`: float32 (80, 800).

    A frame is 400 samples around every 160th, reflected at both ends, under a periodic Hann
    window; the last frame, which lies past the end, is left out.
    """
    wave = np.zeros(_SAMPLES, np.float32)
    if len(turn):
        sound = soxr.resample(turn[-LONGEST:], RATE, _WIDE)[-_SAMPLES:]
        wave[_SAMPLES - len(sound) :] = sound
        silent = _SAMPLES - len(sound)
    else:
        silent = _SAMPLES
    wave = (wave - wave.mean()) / np.sqrt(wave.var() + np.float32(_VARIANCE_FLOOR))
    frames = sliding_window_view(np.pad(wave, _FFT // 2, mode="reflect"), _FFT)[::_HOP][:FRAMES]
    # All frames within the padding are the same one: a turn of 2 s costs a quarter of one of 8.
    alike = max(0, (silent - _FFT // 2) // _HOP)
    window, filters = _window(), _filters()
    spectrum = np.fft.rfft(frames[alike:] * window, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    cells = np.log10(np.maximum(power @ filters, np.float32(_POWER_FLOOR)))
    cells = (np.maximum(cells, cells.max() - np.float32(_RANGE)) + 4) / 4
    seen = np.empty((MELS, FRAMES), np.float32)
    seen[:, alike:] = cells.T
    seen[:, :alike] = cells[0, :, None]
    return seen


@cache
def _window() -> NDArray[np.float32]:
    return np.hanning(_FFT + 1)[:-1].astype(np.float32)


@cache
def _filters() -> NDArray[np.float32]:
    """Slaney's mel filters, as (201, 80): triangles of equal area from 0 to 8 kHz.

    His scale is linear below 1 kHz, 15 mel, and from there on 27 mel are a factor of 6.4.
    """
    top = 15 + 27 * np.log(_WIDE / 2 / 1_000) / np.log(6.4)
    mels = np.linspace(0, top, MELS + 2)
    edges = np.where(mels < 15, mels * 1_000 / 15, 1_000 * 6.4 ** ((mels - 15) / 27))
    bins = np.linspace(0, _WIDE / 2, _FFT // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.asarray(np.maximum(triangles, 0) * 2 / (right - left), np.float32)
