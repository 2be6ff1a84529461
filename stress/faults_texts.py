"""What can be said in a call of stress/faults.py, and how to tell at the phone what was said.

Every clause that anybody may say is known here, and each voice says each of them as a tone of its
own pitch: so what a phone has played names the clause, the voice that spoke it and the brain
that wrote it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from threadline.audio import mulaw
from threadline.dialog import phrases
from threadline.dialog.brain import Answer
from threadline.talking.clauses import clauses_of
from threadline.threads.asr_worker import Decoder

By = Literal["vendor", "second model", "local", "ourselves"]
Voice = Literal["cartesia", "piper"]

GREETING = "Good day."
LONG = (
    "This is a long sentence that goes on and on for so long."
    " And here comes one more of them that is as long as that."
)
FIRST, SECOND = "first-model", "second-model"
ANSWERS = {
    (1, FIRST): "One it is. That is done.",
    (2, FIRST): "Two it is. That is well.",
    (3, FIRST): "Three it is. That is all.",
    (1, SECOND): "One of mine. So be it.",
    (2, SECOND): "Two of mine. As you say.",
    (3, SECOND): "Three of mine. No problem.",
}
LOCAL = "Made by hand {}."
APOLOGIES = (*phrases.NOT_CAUGHT, *phrases.FAILED, *phrases.NO_ANSWER, *phrases.UNSPOKEN)
OTHERS = (phrases.GO_ON[0], phrases.NUDGES[0], phrases.PARTING[0])

NEAREST_HZ = 2.5
HOP, WINDOW, PADDED = 128, 256, 8192  # samples
LOUD = 0.05
APART_SECONDS = 0.3  # what sounds again after such a pause is told apart
BLIP_SECONDS = 0.06  # where two tones meet, a third one may seem to sound
LOWEST_LOCAL, LOCAL_STEP, LOCAL_MS = 1900, 40, 45  # Hz, Hz, ms a character


@dataclass(frozen=True, slots=True)
class Known:
    """A clause: who wrote it, and the caller's line that it answers (0: any)."""

    text: str
    by: By
    line: int = 0


@cache
def known() -> dict[str, Known]:
    """Every clause, by its text."""
    found = [Known(text, "ourselves") for text in (*clauses_of(GREETING), *APOLOGIES, *OTHERS)]
    found += [Known(text, "vendor", 1) for text in clauses_of(LONG)]
    for (line, model), answer in ANSWERS.items():
        by: By = "vendor" if model == FIRST else "second model"
        found += [Known(text, by, line) for text in clauses_of(answer)]
    found += [Known(LOCAL.format(n), "local") for n in range(1, 4)]
    return {one.text: one for one in found}


def vendor_hertz(text: str) -> int:
    """As tests/vendors/cartesia_server.py has it."""
    return 200 + zlib.crc32(text.encode()) // 160 % 1500


@cache
def pitches() -> tuple[tuple[float, Voice, str], ...]:
    """Hz, voice, text. ValueError when two cannot be told apart."""
    found: list[tuple[float, Voice, str]] = []
    for number, text in enumerate(known()):
        found.append((vendor_hertz(text), "cartesia", text))
        found.append((LOWEST_LOCAL + LOCAL_STEP * number, "piper", text))
    found.sort()
    for (low, _, one), (high, _, other) in pairwise(found):
        if high - low < 2 * NEAREST_HZ:
            raise ValueError(f"{one!r} and {other!r} sound alike: reword one of them")
    return tuple(found)


class LocalVoice:
    """In the place of Piper."""

    rate = mulaw.RATE

    def synthesize(self, text: str) -> NDArray[np.float32]:
        hertz = {spoken: hz for hz, voice, spoken in pitches() if voice == "piper"}.get(text, 3900)
        at = np.arange(len(text) * LOCAL_MS * mulaw.RATE // 1000, dtype=np.float32) / mulaw.RATE
        return (0.3 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


class LocalEars(Decoder):
    """In the place of Whisper."""

    def decode(self, audio: NDArray[np.float32], /) -> SimpleNamespace:
        return SimpleNamespace(text="heard by hand", words=())


@dataclass(frozen=True)
class LocalBrain:
    """In the place of the scripted receptionist."""

    greeting: str = GREETING

    def begin(self) -> int:
        return 0

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        return state + 1, Answer(LOCAL.format(state % 3 + 1))


@dataclass(slots=True)
class Sounded:
    """One clause in one voice, as the phone played it; times in s of the call."""

    known: Known
    voice: Voice
    begin: float
    end: float = 0.0
    seconds: float = 0.0  # of sound

    @property
    def whole(self) -> float:
        """How long it is when all of it is said, about."""
        each = 61 if self.voice == "cartesia" else LOCAL_MS
        return len(self.known.text) * each / 1000


@dataclass(slots=True)
class Heard:
    """A call as its caller heard it."""

    clauses: list[Sounded] = field(default_factory=list)  # in the order of their begin
    strange: float = 0.0  # s of loud sound that is no clause

    def between(self, begin: float, end: float) -> list[Sounded]:
        """Clauses that began then."""
        return [one for one in self.clauses if begin <= one.begin < end]

    def twice(self) -> list[str]:
        """Clauses of which more was heard than there is."""
        shares: dict[str, float] = {}
        for one in self.clauses:
            shares[one.known.text] = shares.get(one.known.text, 0.0) + one.seconds / one.whole
        return [text for text, share in shares.items() if share > 1.2]


def listen(played: NDArray[np.uint8]) -> Heard:
    """Tell the tones apart."""
    sound = mulaw.decode_float(played.tobytes())
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    loud = np.sqrt(np.mean(windows**2, axis=1)) > LOUD
    heard, table = Heard(), pitches()
    hertz = np.array([hz for hz, _, _ in table])
    for at, found in _peaks(windows, np.flatnonzero(loud)):
        nearest = int(np.abs(hertz - found).argmin())
        seconds = HOP / mulaw.RATE
        if abs(hertz[nearest] - found) > NEAREST_HZ:
            heard.strange += seconds
            continue
        _, voice, text = table[nearest]
        begin = at * HOP / mulaw.RATE
        one = _latest(heard.clauses, voice, text)
        if one is None or begin - one.end > APART_SECONDS:
            one = Sounded(known()[text], voice, begin)
            heard.clauses.append(one)
        one.end = begin + WINDOW / mulaw.RATE
        one.seconds += seconds
    heard.clauses = [one for one in heard.clauses if one.seconds >= BLIP_SECONDS]
    return heard


def _latest(clauses: Sequence[Sounded], voice: Voice, text: str) -> Sounded | None:
    same = (one for one in reversed(clauses) if one.voice == voice and one.known.text == text)
    return next(same, None)


def _peaks(windows: NDArray[np.float32], which: NDArray[np.intp]) -> Iterator[tuple[int, float]]:
    shape = np.hanning(WINDOW).astype(np.float32)
    for begin in range(0, len(which), 256):
        some = which[begin : begin + 256]
        spectrum = np.abs(np.fft.rfft(windows[some] * shape, PADDED, axis=1))
        for at, peak in zip(some.tolist(), spectrum.argmax(axis=1).tolist(), strict=True):
            yield at, peak * mulaw.RATE / PADDED
