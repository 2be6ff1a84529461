"""Cut an answer, while it is still being written, into clauses for the voice.

The first clause is short, so that the caller hears something soon; each later one may be twice
as long as the one before, because the sound already made covers the making of the next. Every
cut is decided from a window of at most one clause's limit, counted from that clause's start, so
the clauses depend on the text alone and never on how it was chopped into deltas.

A quotation is one thing, as far as it fits: marks inside it cut only where there is no other.
"""

from __future__ import annotations

import re

from .speakable import EMOJI, speakable, stop_ends

FIRST_CHARS = 60
MAX_CHARS = 200

_CLOSING = rf"[\"')\]}}*_`~”’{EMOJI}]*"  # noqa: RUF001  # curly quotes are meant
# A mark counts when white space follows: "3.5", "7:30", "1,200", "a@b.com" have none.
_BREAK = re.compile(
    rf"(?P<stop>[.!?…]+){_CLOSING}(?=\s)"
    rf"|(?P<soft>[,;:]){_CLOSING}(?=\s)"
    r"|(?P<dash>—|[^\S\n](?:[-–]|--+)(?=\s))"  # noqa: RUF001  # the en dash is meant
    r"|(?P<line>\n)"
)
_LIST_NUMBER = re.compile(r"\(?\d{1,3}")  # "1. Apples" is one thing
# Where a sentence without marks may be cut with the least harm: before one of these words.
_JOINT = re.compile(
    r"\s(?=(?:and|but|or|so|because|that|which|who|when|where|if|while|with|for|from|at|in|on"
    r"|before|after|until)\s)"
)


class ClauseCutter:
    """Text deltas in, clauses out. One answer: feed, feed, finish; then it is fresh again.

    ``first_chars`` and ``max_chars`` bound the length of the first and of any clause, in
    characters as they were written.
    """

    __slots__ = ("_first_chars", "_limit", "_max_chars", "_rest")

    def __init__(self, *, first_chars: int = FIRST_CHARS, max_chars: int = MAX_CHARS) -> None:
        self._first_chars = min(first_chars, max_chars)
        self._max_chars = max_chars
        self._limit = self._first_chars  # of the clause that begins at ``_rest``
        self._rest = ""

    def feed(self, delta: str) -> list[str]:
        """Take any amount of text; give the clauses that are now complete, often none."""
        text = self._rest + delta
        clauses: list[str] = []
        start = 0
        while True:
            while start < len(text) and text[start].isspace():
                start += 1
            size = self._cut(text[start : start + self._limit + 1])
            if size is None:
                self._rest = text[start:]
                return clauses
            clause = speakable(text[start : start + size])
            start += size
            if clause:
                clauses.append(clause)
                self._limit = min(2 * self._limit, self._max_chars)

    def finish(self) -> list[str]:
        """The answer is over: give what is left."""
        clauses = self.feed("\n")
        self._rest = ""
        self._limit = self._first_chars
        return clauses

    def _cut(self, window: str) -> int | None:
        """How many characters the clause at the head of ``window`` has; None: read on."""
        full = len(window) > self._limit
        quoted = 0  # the last mark inside a quotation
        for mark in _BREAK.finditer(window):
            if mark.end() > self._limit:
                break
            ends = self._ends(mark, window)
            if ends is None and not full:
                return None
            if not ends or not speakable(window[: mark.end()]):
                continue
            if mark.lastgroup == "line" or not _in_quotation(window[: mark.end()]):
                return mark.end()
            quoted = mark.end()
        return (quoted or self._forced(window)) if full else None

    def _ends(self, mark: re.Match[str], window: str) -> bool | None:
        match mark.lastgroup:
            case "line":
                return True
            case "stop" if mark["stop"] == ".":
                before = window[: mark.start()]
                if _LIST_NUMBER.fullmatch(before):
                    return False
                return stop_ends(before, window[mark.end() :])
            case "stop" if not mark["stop"].endswith(("..", "…")):
                return True
        # A comma, a dash, an ellipsis: worth a breath only when there is something to say before.
        return self._limit == self._first_chars or mark.end() * 3 >= self._limit

    def _forced(self, window: str) -> int:
        """Cut a sentence that has no mark in time: before a joining word, or at a space."""
        joints = [m.start() for m in _JOINT.finditer(window, self._limit // 2)]
        if joints:
            return joints[-1]
        spaces = [at for at, character in enumerate(window) if character.isspace()]
        loose = [at for at in spaces if not _joins(window, at)]
        return (loose or spaces or [self._limit])[-1]


def _in_quotation(text: str) -> bool:
    """Has ``text`` opened a double quotation that it does not close?"""
    return text.count('"') % 2 == 1 or text.count("“") > text.count("”")


def _joins(window: str, at: int) -> bool:
    """May the space there stand inside of a number, or after an abbreviation?"""
    before, after = window[:at], window[at:].lstrip()[:1]
    if before[-1:] == ".":
        return not stop_ends(before[:-1], window[at:])
    return before[-1:].isdigit() and (after.isdigit() or not after)


def clauses_of(text: str) -> list[str]:
    """A whole answer, cut."""
    cutter = ClauseCutter()
    return [*cutter.feed(text), *cutter.finish()]
