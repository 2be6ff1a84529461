"""Who turns an utterance into text: Whisper beside us, Deepgram over the wire.

Both are used by one thread, `asr`, which owns them and the utterances they work on. They are told
of audio as it comes (`more`), are asked for the text of an utterance's first windows (`ask`), may
be told to leave it (`forget`), and have `answers` on the next turn of the loop. An answer without
text means that this source has none to give: the next of the chain is asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..config import Asr, Stt
from ..listening.agreement import Agreement, Word
from ..observe.histogram import LATENCY_MS, Histogram
from ..observe.prometheus import Sample, counter, gauge, milliseconds
from .asr_process import Recogniser, Result
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


# -- Whisper -----------------------------------------------------------------------------------


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


class Whisper:
    """Decodes of whole utterances, dispatched to the recogniser's workers.

    A partial takes a worker only while another one stays free, so that it never delays the text
    of a turn: with one worker there are none.
    """

    name = "whisper"

    def __init__(self, config: Asr, stt: Stt, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self._deadline = config.deadline_seconds
        self._partial_bytes = stt.partial_ms * RATE // 1000 if stt.partials else 0
        self._queue: list[Decode] = []  # bounded: one an utterance, and those by the deadline
        self.running: dict[int, Decode] = {}
        self._wishes: dict[tuple[int, int], Utterance] = {}  # a partial would be due
        self._answers: list[Answer | Growing] = []
        self._numbers = 0
        # Reports.
        self.decoded = 0
        self.wasted = 0
        self.partials = 0
        self.dropped = 0
        self.queued = 0  # finished turns that found no worker
        self.seconds = Histogram(LATENCY_MS)
        self.waits = Histogram(LATENCY_MS)

    @property
    def usable(self) -> bool:
        """A worker has its model."""
        return self.recogniser.ready

    @property
    def busy(self) -> bool:
        """Somebody waits for a worker or an answer."""
        return bool(self._queue or self.running)

    def more(self, utterance: Utterance) -> None:
        """Wish for a partial once there is enough new speech."""
        fresh = len(utterance.audio) - utterance.partial_at
        if self._partial_bytes and fresh >= self._partial_bytes and utterance.epoch >= 0:
            self._wishes[utterance.key] = utterance

    def ask(self, utterance: Utterance, windows: int, now: float) -> None:
        """Queue a decode, unless it is this very one that is queued or under way."""
        if utterance.job is not None:
            if utterance.job.windows == windows:
                return
            self._discard(utterance.job)
        utterance.job = self._decode(utterance, windows, now)
        utterance.job.ahead = utterance.pause == windows and utterance.over is None
        self._queue.append(utterance.job)

    def forget(self, utterance: Utterance) -> None:
        """Take it off the queue; what is under way goes on, for nobody."""
        self._unwish(utterance)
        if utterance.job is not None:
            self._discard(utterance.job)
            utterance.job = None

    def done(self, utterance: Utterance) -> None:
        """Nothing is left of it but perhaps a wish."""
        self._unwish(utterance)
        utterance.job = None

    def answers(self, now: float) -> Sequence[Answer | Growing]:
        """What the workers have done."""
        self.recogniser.tick(now)
        for result in self.recogniser.collect(now):
            self._finish(result)
        for job in [job for job in self._queue if now - job.asked > self._deadline]:
            self._queue.remove(job)
            at = time.monotonic_ns()
            self._answers.append(Answer(job.utterance, job.windows, None, NO_TIME, at, at))
        answers, self._answers = self._answers, []
        return answers

    def go(self, now: float) -> None:
        """Give the workers what they can take, the most urgent first."""
        self._queue.sort(key=lambda job: job.rank)
        while self._queue and self._begin(self._queue[0], now):
            self._queue.pop(0)
        self.queued = sum(job.utterance.over is not None for job in self._queue)
        while not self._queue and self._wishes and self.recogniser.idle > 1:
            utterance = self._wishes.pop(next(iter(self._wishes)))  # the oldest
            if not (utterance.ended or utterance.partial or utterance.gone):
                self._begin_partial(utterance, now)

    def _begin(self, job: Decode, now: float) -> bool:
        """Give it to a worker, unless nobody is left to read it. False: there is none free."""
        if job.utterance.gone:
            return True
        audio = job.utterance.audio[: job.windows * WINDOW]
        if not self.recogniser.submit(job.number, audio, now, job.asked + self._deadline):
            return False
        self._begun(job)
        self.waits.observe(job.began / 1e6 - job.asked * 1e3)
        return True

    def _decode(
        self, utterance: Utterance, windows: int, now: float, *, partial: bool = False
    ) -> Decode:
        self._numbers += 1
        return Decode(self._numbers, utterance, windows, now, partial)

    def _unwish(self, utterance: Utterance) -> None:
        self.dropped += self._wishes.pop(utterance.key, None) is not None

    def _discard(self, job: Decode) -> None:
        """Speech went on: this decode stopped too early."""
        if job in self._queue:
            self._queue.remove(job)
        elif job.began and job.ahead:
            self.wasted += 1

    def _begin_partial(self, utterance: Utterance, now: float) -> None:
        windows = len(utterance.audio) // WINDOW
        job = self._decode(utterance, windows, now, partial=True)
        audio = utterance.audio[round(utterance.partial_from * RATE) :]
        if self.recogniser.submit(job.number, audio, now, now + self._deadline, words=True):
            utterance.partial, utterance.partial_at = True, len(utterance.audio)
            self._begun(job)

    def _begun(self, job: Decode) -> None:
        job.began = time.monotonic_ns()
        self.running[job.number] = job

    def _finish(self, result: Result) -> None:
        job = self.running.pop(result.job, None)
        if job is None:
            return
        about, ended = job.utterance, time.monotonic_ns()
        if job.partial:
            self._finish_partial(job, result)
            return
        self.decoded += 1
        self.seconds.observe((ended - job.began) / 1e6)
        text, reason = result.text, result.reason
        self._answers.append(Answer(about, job.windows, text, reason, job.began, ended))

    def _finish_partial(self, job: Decode, result: Result) -> None:
        about = job.utterance
        about.partial = False
        if about.ended or about.gone or result.text is None:
            self.dropped += 1
            return
        self.partials += 1
        begin = about.partial_from
        words = [Word(one.text, begin + one.start, begin + one.end) for one in result.words]
        if about.agreement.feed(words):
            self._answers.append(Growing(about, about.agreement.committed, fixed=True))
        about.partial_from = about.agreement.trim(begin, job.windows * WINDOW / RATE)

    def samples(self) -> Iterable[Sample]:
        """For /metrics, from the watch thread."""
        about = "Decode of one utterance."
        yield milliseconds("threadline_asr_decode_seconds", about, self.seconds)
        about = "From the wish for an utterance's text until a worker took it."
        yield milliseconds("threadline_asr_wait_seconds", about, self.waits)
        about = "Finished turns that wait for a worker."
        yield gauge("threadline_asr_queue", about, float(self.queued))
        for name, help_text, value in (
            ("decodes", "Utterances decoded, in part or whole.", self.decoded),
            ("wasted", "Decodes begun ahead that the caller spoke on over.", self.wasted),
            ("partials", "Decodes of what a caller had said so far.", self.partials),
            ("partials_dropped", "Those that found no worker, or came too late.", self.dropped),
        ):
            yield counter(f"threadline_asr_{name}_total", help_text, value)


# -- Deepgram ----------------------------------------------------------------------------------


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
