"""Who turns an utterance into text: Whisper beside us, Deepgram over the wire.

Both are used by one thread, `asr`, which owns them and the utterances they work on. They are told
of audio as it comes (`more`), are asked for the text of an utterance's first windows (`ask`), may
be told to leave it (`forget`), and have `answers` on the next turn of the loop. An answer without
text means that this source has none to give: the next of the chain is asked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..listening.agreement import Agreement
from .calls import WINDOW, Call
from .messages import (
    Doubt,
    HearChunk,
    Heard,
    HearFailed,
    HearFinal,
    HearForget,
    Lapse,
    Silence,
    TurnOver,
)
from .wake import Outbox

RATE = 8_000  # bytes of mu-law a second
NO_TIME = "the recogniser had no time for it"
LATE = "there was no final text in time"


@dataclass(slots=True, eq=False)
class Utterance:
    """What asr holds of one utterance, from its onset until its text is out."""

    call: Call
    generation: int
    number: int
    audio: bytearray = field(default_factory=bytearray)
    onset_epoch: int = -1
    epoch: int = -1  # of the floor it has taken; -1 while it may still lapse
    ended: bool = False  # vad says nothing more about it
    closed: bool = False  # nobody waits for its text any more
    fresh: bool = False  # its source has not been told how far it has grown
    over: TurnOver | None = None
    source: int = 0  # in the chain: who is asked for its text
    due: float = 0.0  # s; when the next one is asked; 0: not limited from here
    # The newest question and the newest answer, by the windows they are about.
    asked: int = 0
    pause: int = 0  # the question was asked because the caller paused...
    doubt: int = 0  # ...or because it is to be told what this is
    known: int = 0
    text: str | None = None
    reason: str = ""
    began: int = 0  # ns
    answered: int = 0
    # The sources' own.
    job: Decode | None = None
    sent: int = 0  # bytes
    lost: str = ""  # why there will be no text of it
    agreement: Agreement = field(default_factory=Agreement)
    partial: bool = False  # one is being made
    partial_at: int = 0  # bytes of audio, when the last one was
    partial_from: float = 0.0  # s; where its audio begins
    shown: str = ""  # the last partial that was published
    guess: str = ""  # the newest interim text, and how many bytes it was read from
    guessed: int = 0
    tried: int = 0  # the pause whose words were guessed from it

    @property
    def key(self) -> tuple[int, int]:
        """By which it is found: slots and utterances are never numbered the same twice."""
        return self.call.slot, self.number

    def matches(self, event: Silence | Doubt | TurnOver | Lapse) -> bool:
        """That is about this utterance."""
        return (self.generation, self.number) == (event.generation, event.utterance)

    @property
    def gone(self) -> bool:
        """Its caller is no longer on the line."""
        return self.call.generation.at != self.generation


@dataclass(slots=True, eq=False)
class Decode:
    """One decode: so many windows of this utterance; `partial`: what there was, with times."""

    number: int
    utterance: Utterance
    windows: int
    asked: float  # s
    partial: bool = False
    ahead: bool = False  # the turn is not known to be over
    began: int = 0  # ns

    @property
    def rank(self) -> tuple[int, int]:
        """Turns that have ended first, then what an agent waits for, then decodes ahead."""
        about = self.utterance
        return 0 if about.over else 1 if about.doubt == self.windows else 2, self.number


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of the first `windows`; None: this source cannot tell, and `reason` says why."""

    utterance: Utterance
    windows: int
    text: str | None
    reason: str = ""
    began: int = 0  # ns
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Growing:
    """What was said so far, as far as it is known; `fixed`: none of it will be taken back.
    `covered`: bytes of the utterance that it was read from, 0 when that is not known."""

    utterance: Utterance
    text: str
    fixed: bool
    covered: int = 0


class Source(Protocol):
    """See the module."""

    name: str

    @property
    def usable(self) -> bool:
        """Worth asking now, when there is somebody else."""

    def more(self, utterance: Utterance) -> None:
        """Its audio has grown."""

    def ask(self, utterance: Utterance, windows: int, now: float) -> None:
        """The text of its first windows is wanted; of fewer windows it is not, any more."""

    def forget(self, utterance: Utterance) -> None:
        """Nothing of it is wanted."""

    def done(self, utterance: Utterance) -> None:
        """Its text is out."""

    def answers(self, now: float) -> Sequence[Answer | Growing]:
        """Since the last call."""

    def go(self, now: float) -> None:
        """All that is to be asked on this turn of the loop has been."""


class Deepgram:
    """A stream of each utterance to io-vendors, which hears of it in the order of these events."""

    name = "deepgram"
    usable = True  # its own breaker knows better, and says `HearFailed` at once

    def __init__(self, to_vendors: Outbox[object]) -> None:
        self._to_vendors = to_vendors
        self._open: dict[tuple[int, int], Utterance] = {}
        self._answers: list[Answer | Growing] = []

    def more(self, utterance: Utterance) -> None:
        """Send what there is of it."""
        self._send(utterance, len(utterance.audio))

    def ask(self, utterance: Utterance, windows: int, now: float) -> None:
        """Send that much and no more before the question."""
        utterance.began = time.monotonic_ns()
        self._send(utterance, min(windows * WINDOW, len(utterance.audio)))
        if not utterance.sent:  # all of it was lost on the way here
            self._answers.append(Answer(utterance, windows, ""))
            return
        if utterance.lost:  # io-vendors has said so already, and says it once
            self._answers.append(Answer(utterance, windows, None, utterance.lost))
            return
        slot, generation = utterance.call.slot, utterance.generation
        self._to_vendors.put(HearFinal(slot, generation, utterance.number, windows))

    def forget(self, utterance: Utterance) -> None:
        """Nothing more of it will be taken."""
        if self._open.pop(utterance.key, None) is not None:
            slot, generation = utterance.call.slot, utterance.generation
            self._to_vendors.put(HearForget(slot, generation, utterance.number))

    def done(self, utterance: Utterance) -> None:
        """The next utterance's first chunk says so to the other side."""
        self._open.pop(utterance.key, None)

    def heard(self, event: Heard | HearFailed) -> None:
        """What io-vendors has to say; of an utterance that was left, nothing."""
        about = self._open.get((event.slot, event.utterance))
        if about is None or about.generation != event.generation:
            return
        if isinstance(event, HearFailed):
            about.lost = event.reason
            self._answers.append(Answer(about, about.asked, None, event.reason))
        elif event.final:
            at = time.monotonic_ns()
            self._answers.append(Answer(about, event.windows, event.text, "", about.began, at))
        else:
            self._answers.append(Growing(about, event.text, fixed=False, covered=event.covered))

    def answers(self, now: float) -> Sequence[Answer | Growing]:
        """What `heard` was told."""
        answers, self._answers = self._answers, []
        return answers

    def go(self, now: float) -> None:
        """Nothing: it is asked at once."""

    def _send(self, utterance: Utterance, end: int) -> None:
        if end <= utterance.sent:
            return
        self._open[utterance.key] = utterance
        audio = bytes(utterance.audio[utterance.sent : end])
        utterance.sent = end
        slot, generation = utterance.call.slot, utterance.generation
        self._to_vendors.put(HearChunk(slot, generation, utterance.number, audio))
