"""WAV files: read any uncompressed one, write a two-sided recording of a call."""

from __future__ import annotations

import wave
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import mulaw
from .stream import Resampler


def read(path: str | PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """A PCM file of 8, 16, 24 or 32 bits as (float32[n] in [-1, 1), rate in Hz).

    Several channels are averaged into one. Raises ConfigError for any file it cannot use.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise ConfigError(
            f"{path}: not an uncompressed PCM WAV file ({reason}); convert it with: "
            "ffmpeg -i IN -c:a pcm_s16le OUT.wav"
        ) from error
    if width not in (1, 2, 3, 4) or rate <= 0:
        raise ConfigError(f"{path}: has {8 * width}-bit samples at {rate} Hz; use 16-bit PCM")
    usable = len(raw) - len(raw) % (width * channels)  # a cut-off file may end inside a frame
    if not usable:
        raise ConfigError(f"{path}: has no sound in it; record it again")
    frames = _unit(raw[:usable], width).reshape(-1, channels)
    return frames.mean(axis=1, dtype=np.float32), rate


def _unit(raw: bytes, width: int) -> NDArray[np.float32]:
    """Interleaved little-endian PCM as float32 in [-1, 1)."""
    if width == 1:  # the one unsigned width
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if width == 3:
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return _unit(padded.tobytes(), 4)
    full_scale = 1 << (8 * width - 1)
    # Through float64: float32 would round a 32-bit 0x7FFFFFFF up to 1.0 and out of range.
    unit = np.frombuffer(raw, f"<i{width}") / full_scale
    return np.minimum(unit, 1 - 2.0**-24).astype(np.float32)


def read_mulaw(path: str | PathLike[str]) -> bytes:
    """A PCM file as mu-law at 8 kHz, one byte a sample. Raises ConfigError as ``read`` does."""
    samples, rate = read(path)
    if rate != mulaw.RATE:
        resampler = Resampler(rate, mulaw.RATE)
        samples = np.concatenate([resampler.feed(samples), resampler.finish()])
    return mulaw.encode_float(samples)


def write_stereo(
    path: str | PathLike[str], left: NDArray[np.int16], right: NDArray[np.int16], rate: int
) -> None:
    """Write a 16-bit stereo file; the shorter side is filled up with silence.

    Raises ConfigError when the file cannot be written.
    """
    frames = np.zeros((max(len(left), len(right)), 2), "<i2")
    frames[: len(left), 0] = left
    frames[: len(right), 1] = right
    _write(path, frames, rate)


def write_mono(path: str | PathLike[str], samples: NDArray[np.int16], rate: int) -> None:
    """Write a 16-bit mono file. Raises ConfigError when the file cannot be written."""
    _write(path, samples.astype("<i2").reshape(-1, 1), rate)


def _write(path: str | PathLike[str], frames: NDArray[np.int16], rate: int) -> None:
    try:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(frames.shape[1])
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(frames.tobytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error
