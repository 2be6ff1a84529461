"""Recorded telephone prompts with their exact texts, and the word error rate against them.

The prompts come from Debian's ``asterisk-core-sounds-en-wav`` (the audio) and
``asterisk-core-sounds-en`` (the texts): 8 kHz, one speaker, made for telephone lines. They are
found where Debian puts them, and never copied into this repository (CC-BY-SA).
"""

from __future__ import annotations

import gzip
import re
import wave
from dataclasses import dataclass
from pathlib import Path

import audioop  # not our own codec: a defect of it must show in the error rate, not cancel out
import numpy as np
import soxr
from numpy.typing import NDArray

from threadline.errors import ThreadlineError

SOUNDS = Path("/usr/share/asterisk/sounds")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
PACKAGES = "asterisk-core-sounds-en-wav"

_UNSPOKEN = re.compile(r"[\[\]<>*#@]")  # "[beep]", "press #": the text is not what is said


class ClipsMissingError(ThreadlineError):
    """The Debian package with the prompts is not installed."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One prompt. ``pcm`` is int16 mono at 8 kHz."""

    name: str
    text: str
    pcm: NDArray[np.int16]

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 8_000

    @property
    def mulaw(self) -> bytes:
        """What a carrier would send of it: one byte a sample, 8 kHz."""
        return audioop.lin2ulaw(self.pcm.tobytes(), 2)

    @property
    def heard(self) -> NDArray[np.float32]:
        """What the recogniser gets of it after the telephone: -1..1 at 16 kHz."""
        line = np.frombuffer(audioop.ulaw2lin(self.mulaw, 2), dtype=np.int16)
        narrow = line.astype(np.float32) / 32_768
        wide: NDArray[np.float32] = soxr.resample(narrow, 8_000, 16_000)
        return wide


def load(shortest: float = 2.0, longest: float = 8.0, *, last_letter: str = "p") -> list[Clip]:
    """Every usable prompt whose length in seconds lies within the bounds, in order of name.

    Names after ``last_letter`` are left alone: they stay unheard, for a later judgement.
    Raises ClipsMissingError when the Debian package is not there.
    """
    english = next(
        (f for f in sorted(SOUNDS.glob("en*")) if (f / "hello-world.wav").exists()), None
    )
    if english is None or not TEXTS.exists():
        raise ClipsMissingError(
            f"No recorded prompts under {SOUNDS}: install them with `apt-get install {PACKAGES}`."
        )
    found: dict[str, Clip] = {}
    for line in gzip.decompress(TEXTS.read_bytes()).decode("utf-8").splitlines():
        name, colon, text = line.partition(":")
        path = english / f"{name}.wav"
        if not colon or line.startswith(";") or name[:1] > last_letter or not path.exists():
            continue
        if _UNSPOKEN.search(text):
            continue
        clip = Clip(name, text.strip(), _read(path))
        if shortest <= clip.seconds <= longest:
            found[name] = clip
    return [found[name] for name in sorted(found)]


def _read(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        shape = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        if shape != (1, 2, 8_000):
            raise ClipsMissingError(f"{path} is not 16-bit mono at 8 kHz: reinstall {PACKAGES}.")
        return np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
