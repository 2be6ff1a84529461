"""The far end of a Twilio media stream: what the carrier buffers, and what the phone plays.

Twilio plays media in the order it came, in real time; it returns a mark when everything sent
before the mark has played, and on ``clear`` it forgets what it holds and returns every pending
mark at once. Behind it sits the phone's own playout buffer, which fills for ``buffer_ms``
before an utterance starts and again after it ran dry.

Everything is counted in samples of 8 kHz since the start of the call: sample n is the instant
n / 8000 s, on the wire and in the recording. ``now`` is seconds since that start and must not
go back. One thread owns a Phone; another may read ``utterances``, ``clears`` and ``gaps``,
which only ever grow.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..audio import mulaw
from ..audio.mulaw import RATE

HELD_SAMPLES = 10 * 60 * RATE  # Twilio's limit; it discards what goes beyond (error 31931)
PAUSE_SAMPLES = RATE // 2  # a longer silence starts a new utterance, mark or no mark

# What a person hears of a sample: above a line's noise and below the softest vowel (-42 dBFS).
_LOUD = bytes(abs(int(value)) >= 256 for value in mulaw.DECODE)

CONTINUES, STARTS, RESUMES = 0, 1, 2  # what one media message was to its utterance


@dataclass(slots=True)
class Utterance:
    """Agent speech between two silences of the stream; positions in samples of the call."""

    start: int  # first sample to play
    end: int  # one past the last sample played; grows while it plays
    first_loud: int = -1  # first and last audible sample, -1: none yet
    last_loud: int = -1


@dataclass(frozen=True, slots=True)
class Gap:
    """The buffer ran dry inside an utterance: no mark and no ``clear`` had ended it."""

    start: int  # the first sample that was missing
    end: int  # where playing went on
    frame: int  # index of the media message that came too late


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Every media message of a call, as equally long arrays."""

    at: NDArray[np.float64]  # seconds since the start of the call
    samples: NDArray[np.int64]  # in the message
    kind: NDArray[np.uint8]  # CONTINUES, STARTS or RESUMES


class Phone:
    """One call's buffer. Methods return the names of the marks to send back, in order."""

    def __init__(self, buffer_ms: float = 40.0) -> None:
        self.utterances: list[Utterance] = []
        self.clears: list[int] = []
        self.gaps: list[Gap] = []
        self.discarded = 0  # messages beyond HELD_SAMPLES
        self.marks = 0  # asked for so far
        self._delay = round(buffer_ms * RATE / 1000)
        self._queue: deque[bytes | str] = deque()  # audio, and marks by name
        self._offset = 0  # played so far of the audio at the head
        self._held = 0  # samples in the queue
        self._cursor = -1  # the next sample to play; -1: stopped
        self._open = False  # stopped, and nothing said that the utterance was over
        self._pcm = bytearray()  # what has been played, without the silence between
        self._runs: list[tuple[int, int]] = []  # (sample of the call, offset in _pcm)
        self._at = array("d")
        self._samples = array("q")
        self._kind = array("B")

    @property
    def silent_since(self) -> int | None:
        """The sample at which the last audio ended; None while any is held or playing."""
        if self._cursor >= 0:
            return None
        return self.utterances[-1].end if self.utterances else 0

    @property
    def played(self) -> int:
        """Samples played so far, the silence between utterances not counted."""
        return len(self._pcm)

    def played_since(self, mark: int) -> bytes:
        """The mu-law samples played after `played` was ``mark``."""
        return bytes(self._pcm[mark:])

    def media(self, payload: bytes, now: float) -> list[str]:
        """Queue mu-law audio of any length."""
        echoes = self.play(now)
        if not payload or self._held + len(payload) > HELD_SAMPLES:
            self.discarded += bool(payload)
            return echoes
        kind = CONTINUES if self._cursor >= 0 else self._begin(int(now * RATE) + self._delay)
        self._at.append(now)
        self._samples.append(len(payload))
        self._kind.append(kind)
        self._queue.append(payload)
        self._held += len(payload)
        return echoes

    def mark(self, name: str, now: float) -> list[str]:
        """Ask for ``name`` back when all that came before it has played."""
        echoes = self.play(now)
        self.marks += 1
        if self._cursor < 0:
            self._open = False
            echoes.append(name)
        else:
            self._queue.append(name)
        return echoes

    def clear(self, now: float) -> list[str]:
        """Forget what is held; every pending mark comes back at once."""
        echoes = self.play(now)
        echoes.extend(item for item in self._queue if isinstance(item, str))
        self._queue.clear()
        self._offset = self._held = 0
        self._cursor = -1
        self._open = False
        self.clears.append(int(now * RATE))
        return echoes

    def play(self, now: float) -> list[str]:
        """Let time pass up to ``now``."""
        echoes: list[str] = []
        if self._cursor < 0:
            return echoes
        upto, queue, ended = int(now * RATE), self._queue, False
        while queue:
            head = queue[0]
            if isinstance(head, str):
                echoes.append(head)
                queue.popleft()
                ended = True
                continue
            count = min(len(head) - self._offset, upto - self._cursor)
            if count <= 0:
                return echoes
            ended = False
            self._sound(head[self._offset : self._offset + count])
            self._offset += count
            if self._offset == len(head):
                queue.popleft()
                self._offset = 0
        # At the very instant the audio ends it is not dry yet: the next frame may come now.
        if upto > self._cursor or ended:
            self._open = not ended
            self._cursor = -1
        return echoes

    def arrivals(self) -> Arrivals:
        """Copies of what was recorded about every message."""
        return Arrivals(
            np.array(self._at, np.float64),
            np.array(self._samples, np.int64),
            np.array(self._kind, np.uint8),
        )

    def heard(self, length: int) -> NDArray[np.uint8]:
        """The first ``length`` samples of the call as mu-law codes, silence where none played."""
        out = np.full(length, mulaw.SILENCE, np.uint8)
        pcm = np.frombuffer(bytes(self._pcm), np.uint8)
        stops = [offset for _, offset in self._runs[1:]] + [len(pcm)]
        for (at, offset), stop in zip(self._runs, stops, strict=False):  # no run: one stop
            piece = pcm[offset:stop][: max(0, length - at)]
            out[at : at + len(piece)] = piece
        return out

    def _begin(self, start: int) -> int:
        """Stopped, and audio came: which will be heard from sample ``start`` on."""
        self._cursor = start
        kind = STARTS
        if self._open:
            last = self.utterances[-1]
            self.gaps.append(Gap(last.end, start, len(self._at)))
            kind = RESUMES
        if kind == STARTS or start - self._delay - self.utterances[-1].end > PAUSE_SAMPLES:
            self.utterances.append(Utterance(start, start))
        self._open = False
        return kind

    def _sound(self, piece: bytes) -> None:
        at, last = self._cursor, self.utterances[-1]
        if last.end != at or last.start == at:
            self._runs.append((at, len(self._pcm)))
        self._pcm += piece
        loud = piece.translate(_LOUD)
        if (first := loud.find(1)) >= 0:
            if last.first_loud < 0:
                last.first_loud = at + first
            last.last_loud = at + loud.rfind(1)
        self._cursor = last.end = at + len(piece)
        self._held -= len(piece)
