"""Partial transcripts that never take a word back: LocalAgreement-2.

A recogniser of whole clips is asked again and again while the caller speaks, each time for
everything since a certain point. Its last words change from one answer to the next, for want of
what follows them. So a word is *committed* once two answers running agree on it and on all before
it (Machacek, Dabre and Bojar, "Turning Whisper into Real-Time Transcription System", 2023,
arXiv 2307.14743), and what is committed stays. The text of a turn that is over does not come from
here: it is one decode of the whole utterance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import eq

MOST = 256
"""Words of one answer: more than 28 s of speech can hold. A longer one is a recogniser's loop."""

LONGEST = 15.0
"""Seconds of sound decoded at once, past which `Agreement.trim` cuts."""

_EARLY = 0.1  # s by which times may differ between two answers
_NEAR = 1.0  # s: so far from its time a committed word may be heard again
_REPEAT = 5  # committed words that are looked for, at most
_SENTENCE_MARKS = (".", "?", "!")
_NOT_WORD = re.compile(r"[^\w']+")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a transcript, as the recogniser writes it, with its punctuation."""

    text: str
    start: float  # s since the utterance began
    end: float


class Agreement:
    """The committed words of one utterance, and the newest guess at what follows them."""

    __slots__ = ("_committed", "_guess")

    def __init__(self) -> None:
        self._committed: list[Word] = []
        self._guess: Sequence[Word] = ()

    def reset(self) -> None:
        """A new utterance."""
        self._committed.clear()
        self._guess = ()

    def feed(self, words: Sequence[Word]) -> Sequence[Word]:
        """A new answer, in order of time; returns the words that it commits, maybe none.

        It may begin anywhere before the end of what is committed: see `trim`. An answer of more
        than `MOST` words is passed over.
        """
        if len(words) > MOST:
            return ()
        fresh = self._unheard(words)
        agreed = self._agreed(fresh)
        new = fresh[:agreed]
        self._committed += new
        self._guess = fresh[agreed:]
        return new

    @property
    def committed(self) -> str:
        """The committed text: only ever longer, until `reset`."""
        return _joined(self._committed)

    @property
    def hypothesis(self) -> str:
        """The committed text and, after it, the newest guess."""
        return _joined([*self._committed, *self._guess])

    def trim(self, begin: float, heard: float) -> float:
        """Where the next decode may begin, in s, when the last one went from `begin` to `heard`.

        That is `begin` up to `LONGEST` of sound. Past it, it is the last end of a sentence, or
        else of a word, before the last committed word: that one stays, for the next answer to
        be joined to. With nothing committed nothing is cut.
        """
        if heard - begin <= LONGEST:
            return begin
        earlier = [word for word in self._committed[:-1] if word.end > begin]
        closed = [word.end for word in earlier if word.text.rstrip().endswith(_SENTENCE_MARKS)]
        return max(closed or [word.end for word in earlier], default=begin)

    def _unheard(self, words: Sequence[Word]) -> Sequence[Word]:
        """The words after the committed ones.

        Where the last committed words are heard again, near their time, is the seam; of several
        such places the one where most of them are, then the one that the last guess agrees with
        ("no" after a committed "no" may be the same one or the next), then the nearest. Where
        they are not heard again the times alone tell.
        """
        if not self._committed:
            return words
        last = self._committed[-1].end
        tail = [_key(word.text) for word in reversed(self._committed[-_REPEAT:])]
        best, seam = (0, 0, 0.0), -1
        for at, word in enumerate(words, 1):
            away = abs(word.end - last)
            if away < _NEAR:
                again = _alike(tail, [_key(one.text) for one in reversed(words[:at])])
                found = again, self._agreed(words[at:]), -away
                if again and found > best:
                    best, seam = found, at
        if seam < 0:
            return [word for word in words if word.start > last - _EARLY]
        return words[seam:]

    def _agreed(self, words: Sequence[Word]) -> int:
        """How many of these words, from the first on, the last guess had too."""
        return _alike([_key(word.text) for word in self._guess], [_key(one.text) for one in words])


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items both begin with."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other, strict=False)))


def _key(text: str) -> str:
    return _NOT_WORD.sub("", text.casefold()) or text.strip()


def _joined(words: Sequence[Word]) -> str:
    return " ".join(word.text.strip() for word in words)
