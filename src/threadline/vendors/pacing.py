"""How much of a reply leaves at once: as it comes while the ear waits, in larger pieces after.

A voice makes speech several times as fast as it is heard, in pieces of a few frames, and each
piece that is passed on wakes a thread. Pure: the time is an argument.
"""

from __future__ import annotations

from ..audio.mulaw import RATE
from .cartesia_speech import Piece

AHEAD_SECONDS = 0.4  # of speech that the ear has not heard: until then nothing is held back
HOLD_SECONDS = 0.25  # and after that, at most so long


class Pacing:
    """The pieces of one reply, in order. What is put comes out of `put`, or is ``held`` until
    the caller asks for it with `take`, within `HOLD_SECONDS`."""

    __slots__ = ("_ahead_until", "held")

    def __init__(self) -> None:
        self.held: Piece | None = None
        self._ahead_until = 0.0  # when the ear has heard all that left, at the earliest

    def put(self, piece: Piece, now: float) -> list[Piece]:
        """What is to leave now. The end of a clause always is, with all that was held of it."""
        if piece.reason:
            return [*self.take(), piece]
        if self.held is not None:
            audio, words = self.held.audio + piece.audio, piece.words or self.held.words
            piece = piece._replace(audio=audio, words=words)
        self.held = piece
        if not piece.done and self._ahead_until - now >= AHEAD_SECONDS:
            return []
        self._ahead_until = max(self._ahead_until, now)
        return self.take()

    def take(self) -> list[Piece]:
        """What was held, if anything was."""
        held, self.held = self.held, None
        if held is None:
            return []
        self._ahead_until += len(held.audio) / RATE
        return [held]
