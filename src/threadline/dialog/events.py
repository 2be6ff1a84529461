"""What a conversation is told, and what it orders. Plain values, one per fact.

``epoch`` counts the times the caller took the floor; ``ask`` and ``clause`` are numbered from 1
over the whole call and never used twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from .history import Message

# --- inputs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The call began: greet."""


@dataclass(frozen=True, slots=True)
class TookFloor:
    """The caller speaks. All that is asked or said under an older epoch is void."""

    epoch: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The caller's turn of ``epoch`` is over.

    ``text`` is the final transcript; "" when the sound held no words, None when the recogniser
    failed. An epoch newer than the last ``TookFloor`` takes the floor by itself; an older one
    adds words to a caller who has gone on speaking.
    """

    epoch: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the model's answer."""

    ask: int
    text: str


@dataclass(frozen=True, slots=True)
class AskDone:
    """The model's answer is complete."""

    ask: int


@dataclass(frozen=True, slots=True)
class AskFailed:
    """The model will not answer (any further). ``reason`` is for the log, never for the ear."""

    ask: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClauseSpoken:
    """The voice has synthesized the whole clause: so long is it."""

    clause: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ClauseHeard:
    """The mark of a clause truly came back; marks echoed by a ``clear`` are not reported."""

    epoch: int
    clause: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The wire was cleared of ``epoch``, the one that the interruption ended.

    ``clause`` was on it, ``played_ms`` of it sent; 0 when nothing was playing.
    """

    epoch: int
    clause: int
    played_ms: int


@dataclass(frozen=True, slots=True)
class SpeechFailed:
    """The voice could not speak the clause: none of it will be heard."""

    epoch: int
    clause: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The call is over, whoever ended it. Nothing is ordered after this but a ``CancelAsk``."""


Input = (
    Answered
    | TookFloor
    | TurnEnded
    | Delta
    | AskDone
    | AskFailed
    | ClauseSpoken
    | ClauseHeard
    | Cut
    | SpeechFailed
    | CallEnded
)

# --- outputs --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the model to answer ``messages``."""

    ask: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class CancelAsk:
    """Stop that request; what still arrives of it is ignored."""

    ask: int


@dataclass(frozen=True, slots=True)
class Say:
    """Speak ``text`` (never blank) after the clauses before it."""

    epoch: int
    clause: int
    text: str


@dataclass(frozen=True, slots=True)
class EndOfReply:
    """``clause`` was the last of its reply: once it is played out, silence is intended."""

    epoch: int
    clause: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call when ``clause`` has been heard or was already; 0: at once.

    The latest ``HangUp`` of an epoch counts, and the next ``TookFloor`` withdraws it.
    """

    epoch: int
    clause: int


Output = Ask | CancelAsk | Say | EndOfReply | HangUp
