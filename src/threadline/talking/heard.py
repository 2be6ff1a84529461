"""The mark ledger: of each clause said in a call, how much the caller has heard.

A clause is settled once and for good: heard in full (its mark came back), cut (part of it was
on the wire when the caller took the floor), lost (none of it was), failed (the voice could not
speak it), or dropped (we took it back before any of it was on the wire). Clauses leave on one
wire in the order they were said, so a heard clause proves the open ones before it in its epoch,
and nothing after a cut one can have been heard.

Marks are named ``EPOCH.CLAUSE``; every other name is somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import takewhile

_MARK = re.compile(r"(0|[1-9][0-9]{0,11})\.([1-9][0-9]{0,11})")


def mark_name(epoch: int, clause: int) -> str:
    """Name of the mark that follows the last frame of ``clause``; both count up over a call."""
    return f"{epoch}.{clause}"


def parse_mark(name: object) -> tuple[int, int] | None:
    """``(epoch, clause)`` of a mark of ours; None for a foreign or malformed name."""
    match = _MARK.fullmatch(name) if isinstance(name, str) else None
    return (int(match[1]), int(match[2])) if match else None


def heard_part(
    text: str, played_ms: int, duration_ms: int, words: Sequence[tuple[str, int]] = ()
) -> str:
    """The whole words of ``text`` that were heard when ``played_ms`` of it had been played.

    Args:
        text: the clause.
        played_ms: of its audio, sent.
        duration_ms: of its audio, in all; 0: not known (yet).
        words: as the voice speaks them, in order, each with the ms at which it ends; maybe not
            all of them (yet). A word was heard when it has ended.

    Without ``words``, speech is taken as even: characters in proportion to time. What cannot be
    shown to have been heard was not: without words and duration the result is empty.
    """
    if played_ms <= 0:
        return ""
    if 0 < duration_ms <= played_ms:
        return text
    if words:
        end = _heard_length(text, played_ms, duration_ms, words)
    else:
        end = len(text) * played_ms // duration_ms if duration_ms > 0 else 0
    while 0 < end < len(text) and not text[end].isspace():
        end -= 1
    return text[:end].rstrip() if end < len(text) else text


def _heard_length(
    text: str, played_ms: int, duration_ms: int, words: Sequence[tuple[str, int]]
) -> int:
    """How many characters of ``text`` the words that have ended reach.

    A voice may split words in another way than we do, and leave marks out, so both are compared
    by their letters and digits. Where it says other ones ("$5" is "five dollars"), what agrees
    before and after is exact, and the share that was said of the rest is taken of ours.
    """
    letters = [_letters(word) for word, _ in words]
    ended = takewhile(lambda word: word[1] <= played_ms, words)
    said = sum(len(_letters(word)) for word, _ in ended)
    ours, theirs = _letters(text), "".join(letters)
    alike = _common(ours, theirs)
    if said <= alike:
        return _reach(text, said)
    if duration_ms <= 0:  # more words may follow, so the end cannot be compared
        return _reach(text, alike)
    tail = _common(ours[alike:][::-1], theirs[alike:][::-1])
    left = len(theirs) - said
    if left <= tail:
        return _reach(text, len(ours) - left)
    other = len(theirs) - alike - tail
    return _reach(text, alike + (len(ours) - alike - tail) * (said - alike) // other)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _common(one: str, other: str) -> int:
    """Length of the beginning that both share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _reach(text: str, letters: int) -> int:
    """Where in ``text`` so many letters have been passed, with the marks that follow them."""
    if letters <= 0:
        return 0
    for at, character in enumerate(text):
        letters -= len(_letters(character))
        if letters < 0:
            return at
    return len(text)


class Fate(Enum):
    """What became of a clause."""

    SAID = auto()  # on its way
    VOID = auto()  # the floor was taken; how much was heard is not known yet
    HEARD = auto()
    CUT = auto()
    LOST = auto()
    FAILED = auto()
    DROPPED = auto()


_OPEN = (Fate.SAID, Fate.VOID)


@dataclass(slots=True)
class _Clause:
    epoch: int
    text: str
    fate: Fate = Fate.SAID
    duration_ms: int = 0
    words: tuple[tuple[str, int], ...] = ()
    heard: str = ""


class Ledger:
    """The clauses of one call, by number. Unknown numbers are ignored everywhere."""

    __slots__ = ("_clauses", "_closed")

    def __init__(self) -> None:
        self._clauses: dict[int, _Clause] = {}  # in the order said
        self._closed = -1  # the newest epoch that was cut: nothing more of it reaches the wire

    def said(self, epoch: int, clause: int, text: str) -> None:
        """Enter a clause on its way to the voice. Numbers and epochs must not fall."""
        fate = Fate.LOST if epoch <= self._closed else Fate.SAID
        self._clauses[clause] = _Clause(epoch, text, fate)

    def spoken(
        self, clause: int, duration_ms: int, words: tuple[tuple[str, int], ...] = ()
    ) -> None:
        """The voice has made ``duration_ms`` of audio for it; ``words``: see `heard_part`.

        It may tell more than once, with ``duration_ms`` 0 while the clause is still being made
        and ``words`` as far as they are known; the latest counts.
        """
        entry = self._clauses.get(clause)
        if entry is not None:
            entry.duration_ms, entry.words = duration_ms, words or entry.words

    def void(self, epoch: int) -> None:
        """The caller took the floor: every open clause of an epoch before ``epoch`` is void."""
        for entry in self._clauses.values():
            if entry.fate is Fate.SAID and entry.epoch < epoch:
                entry.fate = Fate.VOID

    def heard(self, epoch: int, clause: int) -> None:
        """The mark of ``clause`` truly came back (not echoed by a ``clear``)."""
        entry = self._clauses.get(clause)
        if entry is None or entry.epoch != epoch or entry.fate not in _OPEN:
            return
        for number, other in self._clauses.items():
            if number <= clause and other.epoch == epoch:
                self._settle(other, Fate.HEARD, other.text)

    def cut(self, epoch: int, clause: int, played_ms: int) -> None:
        """The wire was cleared of ``epoch`` while ``clause`` was on it, ``played_ms`` in.

        ``clause`` 0: nothing was playing, and what is still open was never heard.
        """
        self._closed = max(self._closed, epoch)
        for number, entry in self._clauses.items():
            if entry.epoch > epoch:
                continue
            if entry.epoch == epoch and number < clause:
                self._settle(entry, Fate.HEARD, entry.text)
            elif entry.epoch == epoch and number == clause:
                part = heard_part(entry.text, played_ms, entry.duration_ms, entry.words)
                fate = Fate.HEARD if part == entry.text else Fate.CUT
                self._settle(entry, fate if part else Fate.LOST, part)
            else:
                self._settle(entry, Fate.LOST, "")

    def failed(self, epoch: int, clause: int) -> bool:
        """The voice could not speak it. True when that settles a clause that was open."""
        entry = self._clauses.get(clause)
        if entry is None or entry.epoch != epoch or entry.fate not in _OPEN:
            return False
        entry.fate = Fate.FAILED
        return True

    def drop(self, epoch: int, clause: int) -> None:
        """It and all that was said after it in its epoch is taken back, as far as it is open."""
        for number, entry in self._clauses.items():
            if number >= clause and entry.epoch == epoch:
                self._settle(entry, Fate.DROPPED, "")

    def fate(self, clause: int) -> Fate:
        """What became of a clause; LOST for one that is not known (any more)."""
        entry = self._clauses.get(clause)
        return Fate.LOST if entry is None else entry.fate

    def text(self, clause: int) -> str:
        """What the caller heard of it; empty while that is not known."""
        entry = self._clauses.get(clause)
        return "" if entry is None else entry.heard

    def expected(self, clause: int) -> str:
        """What the caller heard of it or, while it is on its way and he listens, will hear."""
        entry = self._clauses.get(clause)
        if entry is None:
            return ""
        return entry.text if entry.fate is Fate.SAID else entry.heard

    def said_text(self, clause: int) -> str:
        """What the clause was to say."""
        entry = self._clauses.get(clause)
        return "" if entry is None else entry.text

    def forget(self, clauses: Iterable[int]) -> None:
        """Drop clauses that no history refers to any more."""
        for clause in clauses:
            self._clauses.pop(clause, None)

    @staticmethod
    def _settle(entry: _Clause, fate: Fate, heard: str) -> None:
        if entry.fate in _OPEN:
            entry.fate, entry.heard = fate, heard
