"""What a caller on the phone says, and when: the clips in turn, each after its answer.

A turn is one clip. It is answered when agent speech that began after the clip's own speech did
is audible past the clip's end of speech; the turn is over when the reply has ended, which is:
the phone holds nothing, every mark has gone back, and ``quiet`` passed. The greeting is turn 0,
a clip of no length. With a `Barge` the caller does not wait for the end of one reply.

Time is counted in samples of the call, as in `phone`. The script only decides; it is asked for
one frame at a time and owns nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..audio.mulaw import FRAME, RATE
from .phone import Phone, Utterance


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, ready to be said."""

    name: str
    codes: bytes  # mu-law, 8 kHz
    speech: tuple[int, int] | None  # first sample of speech and one past the last; None: silence


@dataclass(frozen=True, slots=True)
class Barge:
    """Say the next clip ``seconds`` after the reply to clip ``turn`` became audible.

    Clips count from 1; turn 0 is the greeting. A reply shorter than that is not interrupted.
    """

    seconds: float
    turn: int = 1


@dataclass(frozen=True, slots=True)
class Said:
    """A clip as it went out; positions in samples of the call, ends exclusive."""

    turn: int
    name: str
    start: int
    end: int
    onset: int  # true start and end of its speech; both ``end`` when the clip has none
    speech_end: int
    speaks: bool


class Script:
    """Turn by turn: `frame` is called once for every 20 ms of the call, in order."""

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        note: Callable[[int, str], None],
        greeting: bool = True,
        barge: Barge | None = None,
        quiet_ms: float = 300.0,
        answer_within: float = 10.0,
        noise: bytes = b"\xff" * FRAME,
    ) -> None:
        self.said: list[Said] = []
        self.unsaid = len(clips)
        self._clips = clips
        self._note = note  # told (sample, sentence) of every step
        self._barge = barge
        self._quiet = round(quiet_ms * RATE / 1000)
        self._patience = round(answer_within * RATE)
        self._noise = noise * 2  # line noise, so that a frame from any phase is one slice
        self._greeting = greeting
        self._answer: Utterance | None = None
        self._seen = 0  # utterances already judged for the current turn
        self._turn = Said(0, "greeting", 0, 0, 0, 0, greeting)

    def frame(self, at: int, phone: Phone) -> bytes | None:
        """The 160 mu-law bytes said from sample ``at`` on; None when it is time to hang up."""
        turn = self._turn
        if at < turn.end:
            self._look(phone)
            return self._slice(at)
        if self._over(at, phone):
            if not self.unsaid:
                return None
            self._next(at, phone)
            return self._slice(at)
        phase = at % (len(self._noise) // 2)
        return self._noise[phase : phase + FRAME]

    def _slice(self, at: int) -> bytes:
        offset = at - self._turn.start
        piece = self._clips[self._turn.turn - 1].codes[offset : offset + FRAME]
        return piece + self._noise[: FRAME - len(piece)]

    def _next(self, at: int, phone: Phone) -> None:
        clip = self._clips[-self.unsaid]
        self.unsaid -= 1
        end = at + len(clip.codes)
        first, last = clip.speech or (len(clip.codes), len(clip.codes))
        self._turn = Said(
            len(self.said) + 1, clip.name, at, end, at + first, at + last, clip.speech is not None
        )
        self.said.append(self._turn)
        self._answer = None
        self._seen = len(phone.utterances)
        self._note(at, f"caller says {clip.name}")

    def _over(self, at: int, phone: Phone) -> bool:
        """Whether the current turn is: answered and heard to the end, or given up."""
        turn, barge = self._turn, self._barge
        if turn.turn == 0 and not self._greeting:
            return True
        answer = self._look(phone)
        since = phone.silent_since
        quiet = since is not None and at - since >= self._quiet
        if answer is None:
            if not turn.speaks:
                return quiet
            if at - turn.speech_end < self._patience:
                return False
            self._note(at, f"no answer to {turn.name}")
            return True
        if barge and turn.turn == barge.turn and self.unsaid:
            began = max(answer.first_loud, turn.speech_end)
            if at >= began + barge.seconds * RATE:
                return True
        return quiet

    def _look(self, phone: Phone) -> Utterance | None:
        """The utterance that answers the current turn, once it is audible."""
        turn = self._turn
        if self._answer is None:
            for utterance in phone.utterances[self._seen :]:
                if utterance.start >= turn.onset and utterance.last_loud >= turn.speech_end:
                    self._answer = utterance
                    waited = max(0, utterance.first_loud - turn.speech_end) * 1000 // RATE
                    after = f" after {waited} ms" if turn.turn else ""
                    self._note(max(utterance.first_loud, 0), f"agent answers{after}")
                    break
        return self._answer
