"""The talk as the caller knows it."""

from __future__ import annotations

from threadline.dialog.history import (
    CARRY_ON,
    MAX_ENTRIES,
    NOT_FINISHED,
    History,
    Message,
)
from threadline.dialog.tools import ToolCall
from threadline.talking.heard import Ledger


def test_only_what_was_heard_is_told_and_roles_alternate() -> None:
    book = Ledger()
    history = History(book)
    greeting = history.agent_says()
    book.said(0, 1, "Hello.")
    book.said(0, 2, "How are you?")
    greeting.clauses += [1, 2]
    book.heard(0, 2)
    history.caller_said("I want")
    lost = history.agent_says()
    book.said(1, 3, "Yes?")
    lost.clauses.append(3)
    history.caller_said("a table.")
    answer = history.agent_says()
    book.said(2, 4, "For how many people?")
    book.spoken(4, 1000)
    answer.clauses.append(4)
    assert history.transcript() == [
        Message("assistant", "Hello. How are you?"),
        Message("user", "I want a table."),
    ]
    book.cut(2, 4, 500)  # a cut that is reported late corrects the past
    assert history.transcript()[-1] == Message("assistant", "For how")


def test_bounded() -> None:
    book = Ledger()
    history = History(book)
    for clause in range(1, 2 * MAX_ENTRIES):
        history.agent_says().clauses.append(clause)
        book.said(0, clause, f"Clause {clause}.")
        book.heard(0, clause)
        history.caller_said(f"Words {clause}.")
    assert len(history.transcript()) == MAX_ENTRIES
    assert book.said_text(1) == ""  # forgotten with its entry
    assert book.said_text(2 * MAX_ENTRIES - 1) != ""


CALLS = [ToolCall("a", "look", "{}"), ToolCall("b", "book", "{}")]


def test_every_call_is_followed_by_its_tools_message() -> None:
    book = Ledger()
    history = History(book)
    history.caller_said("Friday?")
    lost = history.agent_says()  # an answer that nobody heard, and that called nothing
    book.said(1, 1, "Well,")
    lost.clauses.append(1)
    book.void(2)
    step = history.agent_says()
    book.said(2, 2, "Let me look.")
    step.clauses.append(2)
    step.calls += CALLS
    step.results += [None, "Booked."]
    asked = (
        Message("user", "Friday?"),
        Message("assistant", "Let me look.", tuple(CALLS)),  # on its way to the ear
        Message("tool", NOT_FINISHED, answers="a"),
        Message("tool", "Booked.", answers="b"),
    )
    assert tuple(history.messages()) == asked
    assert history.transcript() == [Message("user", "Friday?")]
    step.results[0] = "Free."
    book.heard(2, 2)
    after = history.agent_says()
    book.said(2, 3, "It is done.")
    after.clauses.append(3)
    book.heard(2, 3)
    assert history.messages()[2:] == [
        Message("tool", "Free.", answers="a"),
        Message("tool", "Booked.", answers="b"),
        Message("assistant", "It is done."),
    ]
    assert history.transcript()[-1] == Message("assistant", "Let me look. It is done.")


def test_a_request_ends_with_the_caller_or_a_tool() -> None:
    book = Ledger()
    history = History(book)
    system = Message("system", "Be brief.")
    assert history.prompt("Be brief.") == (system, Message("user", CARRY_ON))
    assert history.prompt("Be brief.", "Hi") == (system, Message("user", "Hi"))
    history.caller_said("Friday?")
    assert history.prompt("Be brief.", "Or Sunday") == (
        system,
        Message("user", "Friday? Or Sunday"),
    )
    assert history.prompt("Be brief.") == (system, Message("user", "Friday?"))  # nothing is kept
    step = history.agent_says()
    step.calls.append(CALLS[0])
    step.results.append("Free.")
    assert history.prompt("Be brief.")[-1].role == "tool"
    assert history.prompt("Be brief.", "Well")[-1] == Message("user", "Well")
