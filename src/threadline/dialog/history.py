"""What has been said in a call, as the caller knows it.

The agent's side is kept as clause numbers and read through the mark ledger, so an interruption
that is settled late still corrects the past.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ..talking.heard import Ledger
from .tools import ToolCall

Role = Literal["system", "user", "assistant", "tool"]

MAX_ENTRIES = 100  # of the latest turns; bounds the memory of a call and the size of a request


@dataclass(frozen=True, slots=True)
class Message:
    """One message to a model. ``calls``: what an assistant asked for; ``answers``: which of them
    a tool's message is about."""

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""  # the ToolCall's id


@dataclass(slots=True)
class Entry:
    """One side's stretch of talk: the caller's ``words``, or the agent's ``clauses``."""

    words: str = ""
    clauses: list[int] = field(default_factory=list)


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
        """Open a stretch of the agent's; its owner appends to ``clauses``."""
        entry = Entry()
        self._add(entry)
        return entry

    def heard(self, entry: Entry) -> str:
        """What the caller heard of one of the agent's stretches."""
        parts = (self._ledger.text(clause) for clause in entry.clauses)
        return " ".join(part for part in parts if part)

    def messages(self) -> list[Message]:
        """The talk so far, roles alternating; what nobody heard is left out."""
        out: list[Message] = []
        for entry in self._entries:
            role: Role = "user" if entry.words else "assistant"
            text = entry.words or self.heard(entry)
            if text and out and out[-1].role == role:
                out[-1] = Message(role, f"{out[-1].text} {text}")
            elif text:
                out.append(Message(role, text))
        return out

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        while len(self._entries) > MAX_ENTRIES:
            self._ledger.forget(self._entries.popleft().clauses)
