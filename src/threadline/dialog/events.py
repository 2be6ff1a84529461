"""What a conversation is told, and what it orders. Plain values, one per fact.

``epoch`` counts the times the caller took the floor; ``ask`` and ``clause`` are numbered from 1
over the whole call and never used twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from .history import Message
from .tools import ToolCall, ToolSpec

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
class Partial:
    """The caller fell silent for a moment, having said ``text`` in the turn of ``epoch`` so far.

    He may go on; then another ``Partial``, or the ``TurnEnded``, has the whole text. Only a guess:
    nothing but an early ``Ask`` comes of it. An epoch newer than the last ``TookFloor`` takes the
    floor by itself.
    """

    epoch: int
    text: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """The caller keyed these digits: a turn that takes no floor.

    Its answer follows what is being said; digits of a caller who is speaking wait for his words.
    """

    digits: str


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nobody has said anything for long, for the ``times``-th time; ``last``: say goodbye.

    Ignored while the caller has the floor, an answer is being made, or the call is about to end.
    """

    times: int
    last: bool


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
class ToolsWanted:
    """The model wants these run; an ``AskDone`` follows. What it wrote before them is said."""

    ask: int
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class ToolDone:
    """What a tool gave back, or in ``error`` one sentence on why it did not. Every ``RunTool`` is
    answered by one, within some deadline, whatever the caller does meanwhile."""

    job: int
    result: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolSlow:
    """A tool has not answered yet: say something meanwhile.

    May be told again and again. Only the first one counts that finds the caller with nothing to
    listen to; a wait for several tools is one wait.
    """

    job: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guard would not let ``clause`` be heard: ``text`` instead of it; ``stop``: and no more of
    that answer. An empty text: nothing instead, unless nothing at all would be left.

    None of the clause may be on the wire yet, nor of those said after it; those are said again.
    """

    clause: int
    text: str
    stop: bool


@dataclass(frozen=True, slots=True)
class ClauseSpoken:
    """The voice has synthesized the whole clause: so long is it. ``words``, when the voice tells,
    are all its words in order, each with the ms from the clause's beginning at which it ends.

    A voice that streams is told of as it goes, with ``duration_ms`` 0 and the words so far, so
    that an interruption before the clause is whole still finds what was heard of it.
    """

    clause: int
    duration_ms: int
    words: tuple[tuple[str, int], ...] = ()


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
    """The call is over, whoever ended it. Nothing is ordered any more but a ``CancelAsk``."""


Input = (
    Answered
    | TookFloor
    | Partial
    | TurnEnded
    | Keyed
    | Quiet
    | Delta
    | AskDone
    | AskFailed
    | ToolsWanted
    | ToolDone
    | ToolSlow
    | Guarded
    | ClauseSpoken
    | ClauseHeard
    | Cut
    | SpeechFailed
    | CallEnded
)

# --- outputs --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the model to answer ``messages``; ``tools``: it may call them.

    ``early``: the turn is not known to be over yet. Nothing of the answer is said, and none of
    its tools run, before it is; if it is over with the same words, this request goes on.
    """

    ask: int
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    early: bool = False


@dataclass(frozen=True, slots=True)
class CancelAsk:
    """Stop that request; what still arrives of it is ignored."""

    ask: int


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run it; a ``ToolDone`` with this ``job`` is awaited. Numbered from 1 over the call.

    An interruption does not cancel it: what it gives back is still entered in the history.
    """

    job: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Say:
    """Speak ``text`` (never blank) after the clauses before it.

    ``filler``: it only bridges a wait. ``guard``: it is somebody else's text, to be guarded.
    """

    epoch: int
    clause: int
    text: str
    filler: bool = False
    guard: bool = True


@dataclass(frozen=True, slots=True)
class Drop:
    """Let nothing be heard of ``clause`` and of all that was said after it until now; an
    ``EndOfReply`` that came behind them is void as well. What replaces them is ordered next."""

    epoch: int
    clause: int


@dataclass(frozen=True, slots=True)
class EndOfReply:
    """``clause`` was the last for now: once it is played out, silence is intended.

    A reply that waits for tools has one before each wait, and one at its end.
    """

    epoch: int
    clause: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call when ``clause`` has been heard or was already; 0: at once.

    The latest ``HangUp`` of an epoch counts, and the next ``TookFloor`` withdraws it.
    """

    epoch: int
    clause: int


Output = Ask | CancelAsk | RunTool | Say | Drop | EndOfReply | HangUp
