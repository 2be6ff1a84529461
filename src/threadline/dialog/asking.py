"""The requests to the model in one call: at most one at a time, and one that may come early.

An *early* request is made while the caller may still be speaking: for the talk as if his turn had
ended with the words known by then. What comes of it is kept. If the turn does end so, it is an
answer that was begun early; if it does not, nobody learns of it. Nothing else knows the words
that an early request guessed at.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..talking.clauses import ClauseCutter
from .events import Ask, CancelAsk, Output
from .history import Message
from .tools import ToolCall, ToolSpec

MAX_EARLY = 64  # clauses that are kept; an answer that is longer by then is given up


@dataclass(slots=True)
class Guess:
    """What has come of an early request."""

    words: str  # of the turn, as far as it was known
    messages: tuple[Message, ...]
    clauses: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    done: bool = False


class Asking:
    """See the module. Its orders go to ``out``.

    ``ask`` is the request under way, 0 for none; ``guess`` is what came early and is not
    confirmed yet.
    """

    __slots__ = ("_count", "_cutter", "_out", "ask", "guess", "hits", "wasted")

    def __init__(self, out: list[Output]) -> None:
        self._out = out
        self._count = 0
        self._cutter = ClauseCutter()
        self.ask = 0
        self.guess: Guess | None = None
        self.hits = 0
        self.wasted = 0

    def current(self, ask: int) -> bool:
        """Is that the request under way?"""
        return ask == self.ask != 0

    def start(self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]) -> None:
        """Ask the model, in the place of what was asked before."""
        self._start(messages, tools, None)

    def start_early(
        self, words: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> None:
        """Ask it already, in case the turn ends with ``words``."""
        self._start(messages, tools, Guess(words, messages))

    def _start(
        self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...], guess: Guess | None
    ) -> None:
        self.cancel()
        self._count += 1
        self.ask = self._count
        self.guess = guess
        self._cutter = ClauseCutter()
        self._out.append(Ask(self.ask, messages, tools, early=guess is not None))

    def cancel(self) -> None:
        """Stop what is under way, and forget what came early."""
        if self.guess is not None:
            self.wasted += 1
            self.guess = None
        if self.ask:
            self._out.append(CancelAsk(self.ask))
            self.ask = 0

    def confirm(self, messages: tuple[Message, ...]) -> Guess | None:
        """The turn has ended and this is the talk: what came early for it, if it is the same.

        The guess is then spent; what still comes of its request is no longer early.
        """
        guess = self.guess
        if guess is None or not self.guessed(messages):
            return None
        self.guess = None
        self.hits += 1
        return guess

    def guessed(self, messages: tuple[Message, ...]) -> bool:
        """Is this talk the one that was guessed at?"""
        return self.guess is not None and same_talk(self.guess.messages, messages)

    def delta(self, text: str) -> list[str]:
        """More of the answer: the clauses that can be said now."""
        return self._sift(self._cutter.feed(text))

    def wants(self, calls: tuple[ToolCall, ...]) -> tuple[list[str], tuple[ToolCall, ...]]:
        """The answer asks for tools: the clauses that can be said and the calls that can be run."""
        clauses = self._sift(self._cutter.finish())
        if self.guess is None:
            return clauses, calls
        self.guess.calls += calls
        return clauses, ()

    def done(self) -> list[str]:
        """The answer is complete: the last clauses that can be said."""
        self.ask = 0
        if self.guess is not None:
            self.guess.done = True
        return self._sift(self._cutter.finish())

    def failed(self) -> bool:
        """There is no (more) answer. True when somebody waits for it."""
        self.ask = 0
        if self.guess is None:
            return True
        self.cancel()
        return False

    def _sift(self, clauses: list[str]) -> list[str]:
        if self.guess is None:
            return clauses
        self.guess.clauses += clauses
        if len(self.guess.clauses) > MAX_EARLY:
            self.cancel()
        return []


def same_talk(one: Sequence[Message], other: Sequence[Message]) -> bool:
    """Whether two requests ask the same: they end with the same words of the caller."""
    if len(one) != len(other) or tuple(one[:-1]) != tuple(other[:-1]) or not one:
        return False
    (a, b) = one[-1], other[-1]
    return a == b or (a.role == b.role == "user" and spoken_words(a.text) == spoken_words(b.text))


def spoken_words(text: str) -> list[str]:
    """The words that were said, whatever their case and the marks and spaces between them.

    Marks right before a digit stay: "3.5" and "-5" are other numbers than "3 5" and "5".
    """
    text = unicodedata.normalize("NFC", text).casefold()
    kept = (
        character if _is_word(character) or (character in _NUMERIC and after.isdigit()) else " "
        for character, after in zip(text, f"{text[1:]} ", strict=False)
    )
    return "".join(kept).split()


_NUMERIC = ".,:;-/#'\u2212\u2013"


def _is_word(character: str) -> bool:
    return character == "%" or unicodedata.category(character)[0] not in "PZC"
