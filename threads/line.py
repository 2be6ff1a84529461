"""One live call as `reply` knows it, and its audio on the way from the voice to the ring.

Used by the reply thread alone. Nothing here runs far ahead of the caller's ear: at most two
clauses are with the voice, and no more is asked of it while eight seconds of speech wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass, field

from ..dialog import events as talk
from ..dialog.conversation import Conversation
from ..observe.turns import Turn
from .calls import END_OF_CLAUSE, END_OF_REPLY, FRAME, Call
from .messages import EndOfSpeech, Speak

AHEAD_CLAUSES = 2
AHEAD_BYTES = 64_000  # 8 s


@dataclass(slots=True)
class Piece:
    """Synthesized audio that has not been pushed yet. `ended`: no more of its answer follows."""

    epoch: int
    clause: int
    audio: bytes
    ended: bool
    at: int = 0


@dataclass(slots=True)
class Line:
    """One live call."""

    call: Call
    generation: int
    call_id: str
    context: Context  # what a brain sets in it is of this call: all calls share the thread
    conversation: Conversation
    epoch: int
    orders: deque[talk.Say | talk.EndOfReply] = field(default_factory=deque)  # not yet with tts
    with_voice: int = 0
    pieces: deque[Piece] = field(default_factory=deque)
    buffered: int = 0
    turn: Turn = field(default_factory=lambda: Turn(0))
    ends: deque[int] = field(default_factory=deque)  # last clauses of answers not yet played out
    hang_up: str = ""  # why, once the end of playback is reported
    hang_up_after: int = 0  # the clause that must have been played out
    hang_up_by: int = 0  # ns
    failed: bool = False  # a stage raised: nothing more is said but the apology

    def fall_silent(self, epoch: int) -> None:
        """The caller has taken the floor: what was to be said under an older epoch is void."""
        self.epoch = epoch
        self.orders.clear()
        self.pieces.clear()
        self.buffered = 0
        self.with_voice = 0
        self.ends.clear()
        self.hang_up = ""
        self.hang_up_by = 0
        self.call.busy.at = 0

    def due_speech(self) -> Iterator[Speak | EndOfSpeech]:
        """What the voice may be asked for now; it counts as asked for."""
        slot, generation = self.call.slot, self.generation
        while self.orders:
            order = self.orders[0]
            if isinstance(order, talk.EndOfReply):
                self.orders.popleft()
                yield EndOfSpeech(slot, generation, order.epoch, order.clause)
            elif self.with_voice >= AHEAD_CLAUSES or self.buffered >= AHEAD_BYTES:
                return
            else:
                self.orders.popleft()
                self.with_voice += 1
                yield Speak(slot, generation, order.epoch, order.clause, order.text)

    def add(self, piece: Piece) -> None:
        """Audio from the voice, to be pushed when there is room."""
        self.pieces.append(piece)
        self.buffered += len(piece.audio)

    def fill(self) -> bool:
        """Push frames while there is room; what does not fit waits, it is never dropped.

        True when the end of an answer was pushed.
        """
        ended = False
        while self.pieces and self._push(self.pieces[0]):
            ended |= self.pieces.popleft().ended
        return ended

    def _push(self, piece: Piece) -> bool:
        """All of a piece, or as much as there is room for. True when it is done."""
        ring, size = self.call.outgoing, len(piece.audio)
        while piece.at < size:
            after = piece.at + FRAME
            flags = END_OF_CLAUSE if after >= size and not piece.ended else 0
            if not ring.room():
                return False
            frame = piece.audio[piece.at : after]
            ring.push(self.generation, piece.epoch, piece.clause, flags, 0, frame)
            piece.at = after
            self.buffered -= FRAME
        if not piece.ended:
            return True
        if not ring.room():
            return False
        self.ends.append(piece.clause)
        return ring.push(self.generation, piece.epoch, piece.clause, END_OF_REPLY, 0, b"")
