"""From speech probabilities to turns: who has the floor, and since when.

Theory of operation. One `SpeechMachine` per call is fed one probability per 32 ms window and is
the only authority on where speech starts and a turn ends. Three states:

    SILENCE   nobody speaks
    SPEECH    the last window was speech
    HANGOVER  speech has stopped, but for less than the turn's end

and one bit: has this speech *taken the floor*? Speech begins tentative. A tentative start only
pauses the agent; it takes the floor when it has lasted, and lapses when it was a cough or an
"uh-huh". How long it must last depends on who is talking: little when the floor is free, more
when it must be taken from the agent.

    state     window     then                                                      event
    SILENCE   speech     SPEECH                                                    Onset
    SPEECH    speech     enough speech, still tentative: the floor is taken        Taken
    SPEECH    silence    HANGOVER
    HANGOVER  speech     SPEECH
    HANGOVER  silence    tentative, and resume_ms of it: SILENCE                   Lapsed
    HANGOVER  silence    floor taken, and probe_ms of it: may be decoded           Paused
    HANGOVER  silence    floor taken, and hangover_ms of it: SILENCE               Over
    any but SILENCE      longer than max_utterance_ms: as if hangover_ms were over Over

Speech opens on the model's word alone. It stays open only while the sound is there, too: the
model is recurrent and goes on believing for 150 to 300 ms after the last sound. On 97 recorded
telephone prompts the shortest hangover that cut none of them in two ended the turn 508 ms after
the true end (p95 670) by the model alone, and 420 ms (p95 440) with the level
(stress/bench/endpoint.py).

`Paused` and `Over` of one pause name the same number of windows, so a decode begun at `Paused`
is already the right one when the turn turns out to be over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ..config import Vad

WINDOW_MS = 32
SILENT_DB = -120.0


class State(Enum):
    """What the last windows were."""

    SILENCE = auto()
    SPEECH = auto()
    HANGOVER = auto()


@dataclass(frozen=True, slots=True)
class Onset:
    """Speech may have started: pause the agent."""


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
    """The turn is over. `windows` as in the last `Paused`; `silence` windows followed speech."""

    windows: int
    silence: int


SpeechEvent = Onset | Taken | Lapsed | Paused | Over

_NOTHING: Sequence[SpeechEvent] = ()
_ONSET: Sequence[SpeechEvent] = (Onset(),)
_TAKEN: Sequence[SpeechEvent] = (Taken(),)
_LAPSED: Sequence[SpeechEvent] = (Lapsed(),)


def windows(ms: int) -> int:
    """Whole windows that cover `ms` milliseconds; at least one."""
    return max(1, -(-ms // WINDOW_MS))


class SpeechMachine:
    """The machine above, for one call. Counts windows, knows no clock.

    Args:
        config: thresholds; ms are rounded up to whole 32 ms windows.
    """

    __slots__ = (
        "_drop",
        "_hangover",
        "_interrupt",
        "_loudest",
        "_max",
        "_min_speech",
        "_onset",
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

    def __init__(self, config: Vad) -> None:
        self._threshold = config.threshold
        self._release = config.release
        self._pause = config.pause_threshold
        self._drop = config.drop_db
        self._onset = windows(config.onset_ms)
        self._min_speech = windows(config.min_speech_ms)
        self._interrupt = windows(config.interrupt_ms)
        self._resume = windows(config.resume_ms)
        self._probe = windows(config.probe_ms)
        self._hangover = windows(config.hangover_ms)
        self._preroll = windows(config.preroll_ms)
        self._max = windows(config.max_utterance_ms)
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

    @property
    def preroll(self) -> int:
        """Windows before the onset that belong to the utterance; the caller keeps that many."""
        return self._preroll

    def feed(
        self, probability: float, level: float, busy: bool, available: int
    ) -> Sequence[SpeechEvent]:
        """One window.

        Args:
            probability: that this window is speech, 0 to 1.
            level: of this window, dBFS.
            busy: the agent is speaking or about to.
            available: windows kept before this one that an onset could take as pre-roll.
        """
        if self.state is State.SILENCE:
            return self._listen(probability, level, busy, available)
        self._windows += 1
        self._loudest = max(self._loudest, level)
        if probability >= self._release and level >= self._loudest - self._drop:
            self.state = State.SPEECH
            self._silence = 0
            self._spoken += 1
            return self._check_taken(busy)
        self.state = State.HANGOVER
        self._silence += 1
        return self._hang()

    def _listen(
        self, probability: float, level: float, busy: bool, available: int
    ) -> Sequence[SpeechEvent]:
        if probability < (self._pause if busy else self._threshold):
            self._streak = 0
            return _NOTHING
        self._streak += 1
        if self._streak < self._onset:
            return _NOTHING
        self.state = State.SPEECH
        self.taken = False
        self._spoken = self._streak
        self._loudest = level
        self._silence = 0
        self._windows = min(self._preroll + self._streak - 1, available) + 1
        self._streak = 0
        return _ONSET

    def _check_taken(self, busy: bool) -> Sequence[SpeechEvent]:
        if self.taken:
            if self._windows < self._max:
                return _NOTHING
            return self._end()
        if self._spoken < (self._interrupt if busy else self._min_speech):
            return _NOTHING
        self.taken = True
        return _TAKEN

    def _hang(self) -> Sequence[SpeechEvent]:
        if not self.taken:
            if self._silence < self._resume:
                return _NOTHING
            self.reset()
            return _LAPSED
        if self._silence >= self._hangover or self._windows >= self._max:
            return self._end()
        if self._silence == self._probe:
            return (Paused(self._windows),)
        return _NOTHING

    def _end(self) -> Sequence[SpeechEvent]:
        over = Over(self._windows - max(0, self._silence - self._probe), self._silence)
        self.reset()
        return (over,)
