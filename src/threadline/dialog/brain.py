"""Who decides what to say.

A *local* brain answers on the spot and is pure: state and words in, state and answer out, so
that a conversation can take an answer back which nobody heard. A *remote* one is a model behind
a socket: the conversation orders an ``Ask`` and is fed with what comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .tools import ToolSpec


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say (never blank), and whether the call ends with it."""

    text: str
    hang_up: bool = False


class LocalBrain[State](Protocol):
    """A brain that answers at once. ``answer`` must neither block nor keep anything."""

    @property
    def greeting(self) -> str:
        """Said when the call begins; blank: the caller speaks first."""
        ...

    def begin(self) -> State:
        """The state of a new call: an immutable value."""
        ...

    def answer(self, state: State, words: str) -> tuple[State, Answer]:
        """Answer what the caller said since the last answer that was heard."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteBrain:
    """A model asked through a vendor.

    ``tools``: what it may call; with `tools.HANG_UP` among them it may end the call. ``fallback``
    answers a turn of which no model says anything; it knows of the turns it answered itself.
    ``speculate``: ask at the first silence, before the turn is known to be over.
    """

    greeting: str
    instructions: str
    tools: tuple[ToolSpec, ...] = ()
    fallback: LocalBrain[Any] | None = None
    speculate: bool = False
