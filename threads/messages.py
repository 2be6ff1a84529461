"""What the threads say to each other: small frozen events, never changed after they are sent.

Every event about a call names its slot and generation, so that one that arrives late, for the
previous caller of that slot, is recognised; those about speech also name the epoch. Times are
`time.monotonic_ns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..dialog.history import Message
from ..dialog.tools import ToolCall, ToolSpec
from ..listening.backchannel import Barge
from .calls import Call

if TYPE_CHECKING:
    import socket

    from .connection import Leg


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


# -- io-calls threads tell each other ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Handed:
    """A caller whom the door has given a line of yours: he and his socket are yours alone."""

    leg: Leg
    sock: socket.socket


@dataclass(frozen=True, slots=True)
class LineFreed:
    """To the door: nobody has this slot any more."""

    call: Call


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
    """The caller's turn has ended. `spoke_until` is when the last speech was heard; `why`: which
    of the endpoint's rules ended it."""

    epoch: int
    utterance: int
    windows: int
    spoke_until: int
    at: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Doubt(Event):
    """Speech over a talking agent has lasted a while, or stopped, and has not taken the floor:
    what is it? Windows [0, `windows`) of the utterance are in the ring."""

    utterance: int
    windows: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class Lapse(Event):
    """It was nothing: forget this utterance."""

    utterance: int


# -- asr and endpoint tell vad ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opinion(Event):
    """What speech over a talking agent is, by its words: see listening/backchannel.py."""

    utterance: int
    windows: int  # that the words were read from
    kind: Barge


@dataclass(frozen=True, slots=True)
class Patience(Event):
    """The turn may end after so much silence; for the pause after `windows` of the utterance."""

    utterance: int
    windows: int
    silence_ms: int
    why: str


# -- asr asks endpoint -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JudgeTurn(Event):
    """Has the caller finished? `audio` is mu-law of his last 8 s at most, this turn's only.

    `hold`: listen, and answer when the words have come in another one. Nothing is lost by it where
    the turn could not be answered before its words are known.
    """

    epoch: int
    utterance: int
    windows: int
    audio: bytes
    text: str  # what he said, as far as it is known; "" when it is not
    hold: bool = False


# -- asr tells io-vendors, io-vendors answers --------------------------------------------------


@dataclass(frozen=True, slots=True)
class HearChunk(Event):
    """More of an utterance: mu-law, in order. The first one of a new utterance begins it."""

    utterance: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class HearFinal(Event):
    """All chunks so far: their final text is wanted, as a `Heard` of the same `windows`."""

    utterance: int
    windows: int


@dataclass(frozen=True, slots=True)
class HearForget(Event):
    """Nothing of this utterance is wanted any more."""

    utterance: int


@dataclass(frozen=True, slots=True)
class Heard(Event):
    """Text of an utterance from its beginning on. `final`: the answer to the `HearFinal` of
    `windows`; otherwise an interim result, `windows` 0, of the first `covered` bytes."""

    utterance: int
    windows: int
    text: str
    final: bool
    covered: int = 0


@dataclass(frozen=True, slots=True)
class HearFailed(Event):
    """There will be no (more) text of this utterance: ask the next of the chain. One sentence."""

    utterance: int
    reason: str


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
    why: str = ""  # of the TurnOver
    source: str = ""  # who recognised it: "whisper", "deepgram"


@dataclass(frozen=True, slots=True)
class Partial(Event):
    """What the caller has said by now, in a turn that may go on. `paused`: he fell silent for a
    moment, and this is all he said before it."""

    epoch: int
    utterance: int
    text: str
    paused: bool
    at: int


# -- reply tells a voice (tts or io-vendors), which answers ----------------------------------


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
class CancelSpeech(Event):
    """The caller has taken the floor, or the reply is given up: nothing is wanted any more of
    what was asked under `epoch` so far. What is asked after it begins a new reply."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Spoken(Event):
    """Mu-law of one clause, whole frames: all of it (tts), or the next piece (io-vendors).

    `done`: the clause is complete, and `duration_ms` its length; `words` as in ClauseSpoken.
    `ended`: the answer to an `EndOfSpeech`, the tail of the reply.
    `reason`: why the voice will not speak the clause (any further); `done` with it.
    """

    epoch: int
    clause: int
    audio: bytes
    duration_ms: int
    ended: bool
    at: int
    reason: str = ""
    done: bool = True
    words: tuple[tuple[str, int], ...] = ()


# -- reply tells io-vendors, io-vendors answers ----------------------------------------------


@dataclass(frozen=True, slots=True)
class AskModel(Event):
    """Request an answer. It replaces the call's earlier request, if there is one."""

    epoch: int
    ask: int
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelModel(Event):
    """Nothing of that request is wanted any more."""

    ask: int


@dataclass(frozen=True, slots=True)
class ModelDelta(Event):
    """More of the answer, never empty. `first_at`: when its first token came."""

    epoch: int
    ask: int
    text: str
    first_at: int = 0


@dataclass(frozen=True, slots=True)
class ModelTools(Event):
    """The model wants these run; a `ModelDone` follows."""

    epoch: int
    ask: int
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class ModelDone(Event):
    """The answer is complete."""

    epoch: int
    ask: int


@dataclass(frozen=True, slots=True)
class ModelFailed(Event):
    """There is no (more) answer, from none of the chain; `reason` is a sentence for the log."""

    epoch: int
    ask: int
    reason: str


# -- reply tells a worker, the worker answers ------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunJob(Event):
    """Run one of the user's functions, in `context`, until `deadline` (monotonic ns).

    A tool: `name` and JSON `arguments`. A guard: `name` "" and `arguments` the clause's text.
    """

    job: int
    name: str
    arguments: str
    deadline: int
    context: Context


@dataclass(frozen=True, slots=True)
class JobDone(Event):
    """What it gave back, as text; of a guard, what may be heard in the place of the clause, and
    with `stop` nothing more. `error`: one sentence on why it did not."""

    job: int
    result: str
    error: str = ""
    stop: bool = False


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
