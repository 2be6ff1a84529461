"""One reply as Cartesia speaks it: which audio belongs to which clause, cut into frames.

Mu-law at 8 kHz arrives as it will be sent. Pure: the time is an argument.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..audio.mulaw import FRAME, RATE, SILENCE_BYTE
from ..errors import ProtocolError
from .cartesia import Answer

_BYTES_PER_MS = RATE // 1000

# What a clause may at most take. Speech has about 15 characters a second; numbers written in
# digits have two.
_LEAST_SECONDS = 5.0
_SECONDS_PER_CHARACTER = 0.6

_NO_AUDIO = "Cartesia sent no audio for a clause: choose another cartesia.voice or cartesia.model."


class Piece(NamedTuple):
    """More of a clause, as in messages.Spoken."""

    clause: int
    audio: bytes
    done: bool = False
    duration_ms: int = 0
    words: tuple[tuple[str, int], ...] = ()
    reason: str = ""


class Clause:
    """One clause that has been asked for and is not complete."""

    __slots__ = (
        "asked", "began", "continued", "flush", "from_start", "limit", "number", "said", "sent",
        "since", "size", "text", "words",
    )  # fmt: skip

    def __init__(self, number: int, text: str, now: float) -> None:
        self.number = number
        self.text = text
        self.asked = now
        self.limit = int((_LEAST_SECONDS + _SECONDS_PER_CHARACTER * len(text)) * RATE)
        self.sent = False
        self.continued = False  # sent to a context that had spoken before
        self.since = 0.0  # when the server could begin with it
        self.began = 0.0  # when its first audio came
        self.size = 0  # bytes received
        self.said = 0  # bytes of whole frames given
        self.flush = 0  # its flush id, once it is known
        self.words: list[tuple[str, int]] = []
        self.from_start: bool | None = None  # do its times count from the context's begin?


class Speech:
    """One reply: clauses in, their audio out as whole frames, each under its clause.

    A part of a frame waits for more, over the end of a clause: the joint has no click. Audio
    belongs to the first clause that is not complete; a flush that is done, or a flush id that
    has risen, moves on to the next. `new_context` when they are asked from the server anew.
    """

    __slots__ = ("_closed", "_flushed", "_rest", "_spoken", "open", "used")

    def __init__(self) -> None:
        self.open: deque[Clause] = deque()
        self.used = False  # the context has been asked for something
        self._rest = b""
        self._spoken = 0  # bytes of the context's complete clauses
        self._closed = 0  # flush id that their last audio had
        self._flushed = 0  # the last flush that was done

    def ask(self, clause: int, text: str, now: float) -> None:
        """One more clause."""
        self.open.append(Clause(clause, text, now))

    def begin(self, now: float) -> None:
        """Its turn has come: only now it waits for the server."""
        for clause in self.open:
            clause.asked = now

    def new_context(self) -> None:
        """The server knows nothing of this reply: clauses that are open have to be sent."""
        self.used = False
        self._spoken = self._closed = self._flushed = 0
        for clause in self.open:
            clause.sent = clause.continued = False
            clause.flush = 0

    def ask_for(self, now: float) -> list[Clause]:
        """The clauses that have not been sent; they are, from now on, to this context."""
        clauses = [clause for clause in self.open if not clause.sent]
        for clause in clauses:
            clause.sent = True
            clause.continued, self.used = self.used, True
            clause.since = now
        return clauses

    def take(self, answer: Answer, now: float) -> list[Piece]:
        """What can be given now, after audio, words or the end of a flush.

        Raises:
            ProtocolError: the clauses that are open cannot be completed.
        """
        if not self.open:
            return []
        if answer.kind == "flushed":
            return self._flush(answer.flush, now)
        if 0 < answer.flush <= self._closed:
            return []  # of a clause that is complete
        pieces: list[Piece] = []
        head = self.open[0]
        if answer.flush > head.flush > 0 and head.size:
            pieces.append(self._close(now))
            if not self.open:
                return pieces
            head = self.open[0]
        head.flush = head.flush or answer.flush
        if answer.kind == "audio":
            pieces += self._audio(head, answer.audio, now)
        elif answer.kind == "words":
            pieces += self._words(head, answer)
        elif answer.kind == "rubbish":
            raise ProtocolError(
                "Cartesia sent audio that is not base64: its status page may say why."
            )
        return pieces

    def over(self, now: float) -> list[Piece]:
        """The context is over: what has audio is complete."""
        return [self._close(now)] if self.open and self.open[0].size else []

    def fail(self, reason: str) -> list[Piece]:
        """Give up what is open. A clause of which no frame was given has no audio at all, so
        that another voice can take the whole of it."""
        pieces = []
        while self.open:
            clause = self.open.popleft()
            audio = self.tail() if clause.said else b""
            length = clause.size // _BYTES_PER_MS if clause.said else 0
            pieces.append(
                Piece(clause.number, audio, True, length, _within(clause, length), reason)
            )
        self._rest = b""
        return pieces

    def tail(self) -> bytes:
        """What is left of a frame, padded with silence."""
        rest, self._rest = self._rest, b""
        return rest + SILENCE_BYTE * (-len(rest) % FRAME)

    def _flush(self, flush: int, now: float) -> list[Piece]:
        head = self.open[0]
        if 0 < flush <= self._flushed or 0 < flush < head.flush:
            return []  # said twice, or too late
        if not flush and not head.size:
            return []  # nobody knows of which
        self._flushed = flush
        return [self._close(now)]

    def _audio(self, clause: Clause, audio: bytes, now: float) -> list[Piece]:
        if not audio:
            return []
        if not clause.size:
            clause.began = now
        clause.size += len(audio)
        if clause.size > clause.limit:
            raise ProtocolError(
                f"Cartesia sent more than {clause.limit // RATE} s of audio for"
                f" {len(clause.text)} characters: choose another cartesia.voice or cartesia.model."
            )
        audio = self._rest + audio
        whole = len(audio) - len(audio) % FRAME
        self._rest = audio[whole:]
        if not whole:
            return []
        clause.said += whole
        return [Piece(clause.number, audio[:whole])]

    def _words(self, clause: Clause, answer: Answer) -> list[Piece]:
        """Told at once: the caller may cut in before the clause is complete."""
        if not answer.words or len(clause.words) + len(answer.words) > len(clause.text):
            return []  # more words than characters are not this clause's
        before = self._spoken // _BYTES_PER_MS
        if clause.from_start is None:
            # Both ways of counting are met; a clause's first word begins near its beginning.
            clause.from_start = answer.began_ms * 2 > before
        offset = before if clause.from_start else 0
        clause.words += ((word, end - offset) for word, end in answer.words)
        return [Piece(clause.number, b"", words=_within(clause, _UNKNOWN))]

    def _close(self, now: float) -> Piece:
        clause = self.open.popleft()
        self._closed = max(self._closed, clause.flush)
        self._spoken += clause.size
        if self.open:
            self.open[0].since = now
        length = clause.size // _BYTES_PER_MS
        reason = "" if clause.size else _NO_AUDIO
        return Piece(clause.number, b"", True, length, _within(clause, length), reason)


_UNKNOWN = 1_000_000  # ms: no clause is as long


def _within(clause: Clause, length: int) -> tuple[tuple[str, int], ...]:
    """Its words, in ms from its beginning: never falling, never after its end."""
    words = []
    latest = 0
    for word, end in clause.words:
        latest = max(latest, min(end, length))
        words.append((word, latest))
    return tuple(words)
