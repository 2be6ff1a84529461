"""The talk as the caller knows it."""

from __future__ import annotations

from threadline.dialog.history import MAX_ENTRIES, History, Message
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
    assert history.messages() == [
        Message("assistant", "Hello. How are you?"),
        Message("user", "I want a table."),
    ]
    book.cut(2, 4, 500)  # a cut that is reported late corrects the past
    assert history.messages()[-1] == Message("assistant", "For how")


def test_bounded() -> None:
    book = Ledger()
    history = History(book)
    for clause in range(1, 2 * MAX_ENTRIES):
        history.agent_says().clauses.append(clause)
        book.said(0, clause, f"Clause {clause}.")
        book.heard(0, clause)
        history.caller_said(f"Words {clause}.")
    assert len(history.messages()) == MAX_ENTRIES
    assert book.said_text(1) == ""  # forgotten with its entry
    assert book.said_text(2 * MAX_ENTRIES - 1) != ""
