"""One conversation, told fact by fact, and everything it has ordered."""

from __future__ import annotations

from threadline.dialog.brain import Answer, RemoteBrain
from threadline.dialog.conversation import Conversation
from threadline.dialog.events import (
    Answered,
    Ask,
    ClauseHeard,
    ClauseSpoken,
    Delta,
    Input,
    Output,
    RunTool,
    Say,
    TookFloor,
    TurnEnded,
)
from threadline.dialog.history import Message
from threadline.dialog.tools import HANG_UP, ToolSpec

REMOTE = RemoteBrain(greeting="Hello there.", instructions="Be brief.")
SYSTEM = Message("system", "Be brief.")
LOOK = ToolSpec("look", "Look up a booking.", {"type": "object", "properties": {}})
BOOK = ToolSpec("book", "Book a table.", {"type": "object", "properties": {}})
TOOLED = RemoteBrain("Hello there.", "Be brief.", tools=(LOOK, BOOK, HANG_UP))
EAGER = RemoteBrain("Hello there.", "Be brief.", tools=(LOOK, BOOK, HANG_UP), speculate=True)


class Call:
    def __init__(self, brain: object = REMOTE, epoch: int = 0) -> None:
        self.talk = Conversation(brain, epoch)  # type: ignore[arg-type]  # brains of these tests
        self.out: list[Output] = []

    def tell(self, *events: Input) -> list[Output]:
        """The orders these events lead to."""
        out = [order for event in events for order in self.talk.handle(event)]
        self.out += out
        return out

    def says(self, *events: Input) -> str:
        return " ".join(order.text for order in self.tell(*events) if isinstance(order, Say))

    def asks(self, *events: Input) -> Ask:
        (ask,) = [order for order in self.tell(*events) if isinstance(order, Ask)]
        return ask

    def jobs(self, *events: Input) -> list[int]:
        return [order.job for order in self.tell(*events) if isinstance(order, RunTool)]

    def hear_all(self) -> None:
        clauses = [(order.epoch, order.clause) for order in self.out if isinstance(order, Say)]
        for epoch, clause in clauses:
            self.tell(ClauseHeard(epoch, clause))

    def turn(self, epoch: int, text: str | None) -> list[Output]:
        return self.tell(TookFloor(epoch), TurnEnded(epoch, text))


def greeted(brain: object = REMOTE) -> Call:
    call = Call(brain)
    call.tell(Answered())
    call.hear_all()
    return call


def answering(text: str = "It is open. Come in. Sit down. ") -> Call:
    """The caller asked "Open?" and three clauses of an unfinished answer are on their way."""
    call = greeted()
    call.turn(1, "Open?")
    call.tell(Delta(1, text))
    for clause in (2, 3, 4):
        call.tell(ClauseSpoken(clause, 1000))
    return call


class Echo:
    """A local brain that repeats everything it was told since the call began."""

    greeting = "Hello."

    def begin(self) -> tuple[str, ...]:
        return ()

    def answer(self, state: tuple[str, ...], words: str) -> tuple[tuple[str, ...], Answer]:
        state = (*state, words)
        return state, Answer("/".join(state) + ".", hang_up=words == "bye")
