"""What the threads say to each other: small frozen events, never changed after they are sent.

Every event about a call names its slot and generation, so that one that arrives late, for the
previous caller of that slot, is recognised; those about speech also name the epoch. Times are
`time.monotonic_ns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """What every event about a call begins with."""

    slot: int
    generation: int


# -- io-calls tells reply --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallOpened(Event):
    """The carrier has started its stream: somebody is on the line."""

    call_id: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MarkReturned(Event):
    """The carrier played everything before this mark."""

    name: str


@dataclass(frozen=True, slots=True)
class PlaybackCut(Event):
    """A `clear` went out: of `clause`, `played_ms` had been sent before. None: nothing was on."""

    epoch: int
    clause: int
    played_ms: int


@dataclass(frozen=True, slots=True)
class FirstFrame(Event):
    """The first frame of an answer was written to the socket."""

    epoch: int
    clause: int
    at: int


@dataclass(frozen=True, slots=True)
class DigitPressed(Event):
    """One DTMF key."""

    digit: str


@dataclass(frozen=True, slots=True)
class CallClosed(Event):
    """The call is over and its slot is free."""

    reason: str


# -- vad tells reply and asr -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FloorTaken(Event):
    """The caller is speaking, and means it. All that is older than `epoch` is void."""

    epoch: int
    at: int


@dataclass(frozen=True, slots=True)
class Silence(Event):
    """Speech stopped a moment ago: windows [0, `windows`) of the utterance may be decoded now."""

    epoch: int
    utterance: int
    windows: int
    at: int


@dataclass(frozen=True, slots=True)
class TurnOver(Event):
    """The caller's turn has ended. `spoke_until` is when the last speech was heard."""

    epoch: int
    utterance: int
    windows: int
    spoke_until: int
    at: int


# -- asr tells reply -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcript(Event):
    """What the caller said in one turn; text None: it could not be recognised."""

    epoch: int
    text: str | None
    spoke_until: int
    turn_over: int
    decode_began: int
    decode_ended: int
    at: int
    reason: str = ""


# -- reply tells tts, tts answers ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speak(Event):
    """Say one clause."""

    epoch: int
    clause: int
    text: str


@dataclass(frozen=True, slots=True)
class EndOfSpeech(Event):
    """No clause follows `clause` in this reply: give the tail that the resampler still holds."""

    epoch: int
    clause: int


@dataclass(frozen=True, slots=True)
class Spoken(Event):
    """Mu-law of one clause, whole frames; `duration_ms` is the clause's own length.

    `ended`: the reply is complete after it. `reason`: why the voice could not speak it."""

    epoch: int
    clause: int
    audio: bytes
    duration_ms: int
    ended: bool
    at: int
    reason: str = ""


# -- reply tells io-calls --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HangUp(Event):
    """End the call from our side."""

    reason: str


# -- the supervisor tells ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageFailed(Event):
    """A stage raised while it worked on this call."""

    stage: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new calls; `now` also ends the live ones."""

    now: bool
