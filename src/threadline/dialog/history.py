"""What has been said in a call, as the caller knows it.

The agent's side is kept as clause numbers and read through the mark ledger, so an interruption
that is settled late still corrects the past. A tool that answers late does so as well.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ..talking.heard import Ledger
from .tools import ToolCall

Role = Literal["system", "user", "assistant", "tool"]

MAX_ENTRIES = 100  # of the latest turns; bounds the memory of a call and the size of a request
# Told to the model:
CARRY_ON = "(The caller made a sound but said nothing. Go on from where you stopped.)"
NOT_FINISHED = "(not finished)"  # a tool that has not answered


@dataclass(frozen=True, slots=True)
class Message:
    """One message to a model. ``calls``: what an assistant asked for, its ``text`` may then be
    empty; ``answers``: which of them a tool's message is about."""

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""  # the ToolCall's id


@dataclass(slots=True)
class Entry:
    """One side's stretch of talk: the caller's ``words``, or the agent's ``clauses``, and what
    tools were then ``calls`` for him, with their ``results`` (None: none yet)."""

    words: str = ""
    clauses: list[int] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[str | None] = field(default_factory=list)


class History:
    """The last ``MAX_ENTRIES`` stretches of talk of one call."""

    __slots__ = ("_entries", "_ledger")

    def __init__(self, ledger: Ledger) -> None:
        self._entries: deque[Entry] = deque()
        self._ledger = ledger

    def caller_said(self, words: str) -> None:
        """Enter what the caller said."""
        self._add(Entry(words=words))

    def agent_says(self) -> Entry:
        """Open a stretch of the agent's; its owner appends to ``clauses``, and to ``calls`` and
        ``results`` alike."""
        entry = Entry()
        self._add(entry)
        return entry

    def transcript(self) -> list[Message]:
        """The talk so far, roles alternating; what nobody heard is left out."""
        out: list[Message] = []
        for entry in self._entries:
            heard = [self._ledger.text(clause) for clause in entry.clauses]
            _add_text(out, entry, heard)
        return out

    def messages(self) -> list[Message]:
        """The talk so far for a model that is to answer now.

        It tells of what was heard or is on its way to a caller who listens. Every call of a tool
        is followed by one message of that tool; else roles alternate.
        """
        out: list[Message] = []
        for entry in self._entries:
            _add_text(out, entry, [self._ledger.expected(clause) for clause in entry.clauses])
            if entry.calls:
                _add_calls(out, entry)
        return out

    def prompt(self, instructions: str, words: str = "") -> tuple[Message, ...]:
        """The request for the next answer. ``words``: as if the caller had said them as well."""
        talk = self.messages()
        role = talk[-1].role if talk else "assistant"
        if words and role == "user":
            talk[-1] = Message("user", f"{talk[-1].text} {words}")
        elif words or role == "assistant":
            talk.append(Message("user", words or CARRY_ON))
        return (Message("system", instructions), *talk)

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        while len(self._entries) > MAX_ENTRIES:
            self._ledger.forget(self._entries.popleft().clauses)


def _add_text(out: list[Message], entry: Entry, clauses: list[str]) -> None:
    role: Role = "user" if entry.words else "assistant"
    text = entry.words or " ".join(filter(None, clauses))
    if text and out and out[-1].role == role:
        out[-1] = Message(role, f"{out[-1].text} {text}")
    elif text:
        out.append(Message(role, text))


def _add_calls(out: list[Message], entry: Entry) -> None:
    text = out.pop().text if out and out[-1].role == "assistant" else ""
    out.append(Message("assistant", text, tuple(entry.calls)))
    for call, result in zip(entry.calls, entry.results, strict=True):
        out.append(Message("tool", NOT_FINISHED if result is None else result, answers=call.id))
