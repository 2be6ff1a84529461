"""From speech probabilities to turns: who has the floor, and since when.

Theory of operation. One `SpeechMachine` per call is fed one probability per 32 ms window and is
the only authority on where speech starts and a turn ends. Three states:

    SILENCE   nobody speaks
    SPEECH    the last window was speech
    HANGOVER  speech has stopped, but the turn is not over

and one bit: has this speech *taken the floor*? Speech begins tentative. A tentative start only
pauses the agent; it takes the floor, or it lapses. The free floor is taken by min_speech_ms. From
an agent who talks it is taken by words: the machine asks (`Doubted`), somebody reads the words and
answers (`opinion`). Who is not answered within grace_ms goes by duration, interrupt_ms of speech.

    state     window     then                                                      event
    SILENCE   speech     SPEECH                                                    Onset
    SPEECH    speech     tentative, the floor is free, min_speech_ms: taken        Taken
    SPEECH    speech     tentative, the agent talks, another interrupt_ms: ask     Doubted
    SPEECH    silence    HANGOVER
    HANGOVER  speech     SPEECH
    HANGOVER  silence    floor taken, and probe_ms of it: may be decoded           Paused
    HANGOVER  silence    floor taken, and this pause's patience is over: SILENCE   Over
    HANGOVER  silence    tentative, resume_ms of it, words not asked for: ask      Doubted
    HANGOVER  silence    tentative, resume_ms of it, and nothing to ask: SILENCE   Lapsed
    tentative any        asked, no answer in grace_ms, interrupt_ms spoken: taken  Taken
    HANGOVER  silence    asked, no answer in grace_ms, less than that: SILENCE     Lapsed
    any but SILENCE      max_utterance_ms: SILENCE                          Over or Lapsed

    opinion              then                                                      event
    words, or "stop"     the floor is taken at once, spoken or silent              Taken
    anything else        silent for resume_ms: SILENCE; else it may be asked again Lapsed

    patience             then                                                      event
    of this very pause   the newest one counts; reached already: SILENCE           Over

The agent who speaks a protected greeting (`PROTECTED`) cannot be interrupted: nothing is asked or
taken; speech that outlasts it takes the floor then. The floor may be taken in silence, when the
words are read a moment late; if that silence is a pause already, `Paused`, or `Over` at once,
comes with the `Taken`.

Speech opens on the model's word alone. It stays open only while the sound is there, too: the
model is recurrent and goes on believing for 150 to 300 ms after the last sound. On 97 recorded
telephone prompts the shortest hangover that cut none of them in two ended the turn 508 ms after
the true end (p95 670) by the model alone, and 420 ms (p95 440) with the level
(stress/bench/endpoint.py).

`Paused` and `Over` of one pause name the same number of windows, and so does a `Doubted` in it,
so a decode begun at the first of them is already the right one at the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ..config import Vad
from .backchannel import Barge

WINDOW_MS = 32
SILENT_DB = -120.0

FREE, TALKING, PROTECTED = 0, 1, 2
"""What the agent does, as `feed` wants to know it."""


class State(Enum):
    """What the last windows were."""

    SILENCE = auto()
    SPEECH = auto()
    HANGOVER = auto()


@dataclass(frozen=True, slots=True)
class Onset:
    """Speech may have started: pause the agent."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """Is this an interruption? Read the words of the first `windows`, pre-roll included."""

    windows: int
    stopped: bool  # the caller is silent again


@dataclass(frozen=True, slots=True)
class Taken:
    """The caller has the floor: what the agent was saying or about to say is void."""


@dataclass(frozen=True, slots=True)
class Lapsed:
    """It was nothing: let the agent go on from the very next sample."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Silence for probe_ms. `windows` of the utterance, pre-roll included, can be decoded."""

    windows: int


@dataclass(frozen=True, slots=True)
class Over:
    """The turn is over. `windows` as in the last `Paused`, if there was one: tentative speech that
    is taken in its silence may be over at once. `silence` windows followed speech.

    `why`: that of the patience that ended it, or "longest" at max_utterance_ms.
    """

    windows: int
    silence: int
    why: str


SpeechEvent = Onset | Doubted | Taken | Lapsed | Paused | Over

_NOTHING: Sequence[SpeechEvent] = ()
_ONSET: Sequence[SpeechEvent] = (Onset(),)
_TAKEN: Sequence[SpeechEvent] = (Taken(),)
_LAPSED: Sequence[SpeechEvent] = (Lapsed(),)


def windows(ms: int) -> int:
    """Whole windows that cover `ms` milliseconds; at least one."""
    return max(1, -(-ms // WINDOW_MS))


def silent_windows(ms: int) -> int:
    """Windows of silence after which `ms` milliseconds of it have passed; at least one.

    Speech ends somewhere in its last window, on average in the middle.
    """
    return windows(ms - WINDOW_MS // 2)


class SpeechMachine:
    """The machine above, for one call. Counts windows, knows no clock.

    Args:
        config: thresholds; ms are rounded up to whole 32 ms windows.
        patience_ms: silence that ends a turn unless `patience` says otherwise; without it
            hangover_ms.
        why: what an `Over` after that silence says.
    """

    __slots__ = (
        "_asked",
        "_asked_spoken",
        "_default",
        "_drop",
        "_grace",
        "_interrupt",
        "_left",
        "_loudest",
        "_max",
        "_min_speech",
        "_onset",
        "_patience",
        "_pause",
        "_preroll",
        "_probe",
        "_release",
        "_resume",
        "_silence",
        "_spoken",
        "_streak",
        "_threshold",
        "_windows",
        "state",
        "taken",
    )

    def __init__(self, config: Vad, patience_ms: int | None = None, why: str = "hangover") -> None:
        if patience_ms is None:
            patience_ms = config.hangover_ms
        self._threshold = config.threshold
        self._release = config.release
        self._pause = config.pause_threshold
        self._drop = config.drop_db
        self._onset = windows(config.onset_ms)
        self._min_speech = windows(config.min_speech_ms)
        self._interrupt = windows(config.interrupt_ms)
        self._grace = windows(config.grace_ms)
        self._resume = windows(config.resume_ms)
        self._probe = windows(config.probe_ms)
        self._preroll = windows(config.preroll_ms)
        self._max = windows(config.max_utterance_ms)
        self._default = (silent_windows(patience_ms), why)
        self.reset()

    def reset(self) -> None:
        """A new caller."""
        self.state = State.SILENCE
        self.taken = False
        self._streak = 0  # speech windows in a row, in SILENCE
        self._spoken = 0  # speech windows of this utterance
        self._silence = 0  # windows of silence since the last speech
        self._windows = 0  # windows of this utterance, pre-roll included
        self._loudest = SILENT_DB  # window of this utterance
        self._asked = 0  # windows that the last question named
        self._asked_spoken = 0  # speech windows by then
        self._left = 0  # windows in which its answer may still come; 0: none is awaited
        self._patience: tuple[int, str] | None = None  # given for this pause

    @property
    def preroll(self) -> int:
        """Windows before the onset that belong to the utterance; the caller keeps that many."""
        return self._preroll

    def feed(
        self, probability: float, level: float, busy: int, available: int
    ) -> Sequence[SpeechEvent]:
        """One window.

        Args:
            probability: that this window is speech, 0 to 1.
            level: of this window, dBFS.
            busy: whether the agent is speaking or about to: FREE, TALKING or PROTECTED.
            available: windows kept before this one that an onset could take as pre-roll.
        """
        if self.state is State.SILENCE:
            return self._listen(probability, level, busy, available)
        self._windows += 1
        self._loudest = max(self._loudest, level)
        if probability >= self._release and level >= self._loudest - self._drop:
            self.state = State.SPEECH
            self._silence = 0
            self._patience = None
            self._spoken += 1
            return self._speak(busy)
        self.state = State.HANGOVER
        self._silence += 1
        return self._hang(busy)

    def opinion(self, kind: Barge, windows: int) -> Sequence[SpeechEvent]:
        """The words of tentative speech have been read, as far as `windows`.

        Words that were said stay said, however old the reading. That there were none is news
        only of all that was asked about.
        """
        if self.state is State.SILENCE or self.taken:
            return _NOTHING
        if kind is Barge.WORDS or kind is Barge.STOP:
            return self._take()
        if windows != self._asked:
            return _NOTHING
        self._left = 0
        if self._silence < self._resume:
            return _NOTHING  # still talking, or about to: asked again, or lapses, in time
        return self._lapse()

    def patience(self, windows: int, silence_ms: int, why: str) -> Sequence[SpeechEvent]:
        """The pause that `Paused(windows)` began may end the turn after so much silence."""
        if not self.taken or self._silence < self._probe or windows != self._named():
            return _NOTHING
        self._patience = silent_windows(silence_ms), why
        return self._check_over()

    def _named(self) -> int:
        """Windows that this pause names: those until it may be decoded, at most."""
        return self._windows - max(0, self._silence - self._probe)

    def _listen(
        self, probability: float, level: float, busy: int, available: int
    ) -> Sequence[SpeechEvent]:
        if probability < (self._pause if busy == TALKING else self._threshold):
            self._streak = 0
            return _NOTHING
        self._streak += 1
        if self._streak < self._onset:
            return _NOTHING
        streak = self._streak
        self.reset()
        self.state = State.SPEECH
        self._spoken = streak
        self._loudest = level
        self._windows = min(self._preroll + streak - 1, available) + 1
        return _ONSET

    # -- a window of speech ------------------------------------------------------------------

    def _speak(self, busy: int) -> Sequence[SpeechEvent]:
        if self.taken:
            if self._windows < self._max:
                return _NOTHING
            return self._end("longest")
        if self._windows >= self._max:
            return self._lapse()
        if busy == PROTECTED:
            self._left = 0
            return _NOTHING
        if busy == FREE and self._spoken >= self._min_speech:
            return self._take()
        if self._left:
            return self._wait()
        if busy == FREE or self._spoken - self._asked_spoken < self._interrupt:
            return _NOTHING
        return self._ask(stopped=False)

    def _ask(self, stopped: bool) -> Sequence[SpeechEvent]:
        self._asked, self._asked_spoken, self._left = self._named(), self._spoken, self._grace
        return (Doubted(self._asked, stopped),)

    def _wait(self) -> Sequence[SpeechEvent]:
        """One window less to wait for the answer. Without one, so much speech is enough."""
        self._left -= 1
        if self._left or self._spoken < self._interrupt:
            return _NOTHING
        return self._take()

    def _take(self) -> Sequence[SpeechEvent]:
        self.taken = True
        self._left = 0
        if not self._silence:
            return _TAKEN
        if over := self._check_over():
            return (Taken(), *over)
        return _TAKEN if self._silence < self._probe else (Taken(), Paused(self._named()))

    # -- a window of silence -----------------------------------------------------------------

    def _hang(self, busy: int) -> Sequence[SpeechEvent]:
        if self._windows >= self._max:
            return self._end("longest") if self.taken else self._lapse()
        if not self.taken:
            return self._hang_tentative(busy)
        if over := self._check_over():
            return over
        if self._silence == self._probe:
            return (Paused(self._named()),)
        return _NOTHING

    def _hang_tentative(self, busy: int) -> Sequence[SpeechEvent]:
        if busy == PROTECTED:
            self._left = 0
        if self._left and (taken := self._wait()):
            return taken
        if self._silence < self._resume:
            return _NOTHING
        if (
            self._silence == self._resume
            and busy == TALKING
            and self._spoken >= self._min_speech  # less than a free floor takes is no word
            and self._spoken > self._asked_spoken
        ):
            return self._ask(stopped=True)
        return _NOTHING if self._left else self._lapse()

    def _check_over(self) -> Sequence[SpeechEvent]:
        patience, why = self._patience or self._default
        return _NOTHING if self._silence < patience else self._end(why)

    def _lapse(self) -> Sequence[SpeechEvent]:
        self.reset()
        return _LAPSED

    def _end(self, why: str) -> Sequence[SpeechEvent]:
        over = Over(self._named(), self._silence, why)
        self.reset()
        return (over,)
