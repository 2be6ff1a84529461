"""Guards: clauses that are not let through, and what becomes of those around them."""

from __future__ import annotations

import pytest
from one_call import TOOLED, Call, Echo, greeted

from threadline.dialog.events import (
    Answered,
    AskDone,
    CancelAsk,
    ClauseHeard,
    ClauseSpoken,
    Cut,
    Delta,
    Drop,
    EndOfReply,
    Guarded,
    HangUp,
    Keyed,
    Output,
    Quiet,
    Say,
    SpeechFailed,
    TookFloor,
    ToolDone,
    ToolSlow,
    ToolsWanted,
    TurnEnded,
)
from threadline.dialog.history import Message
from threadline.dialog.phrases import NO_ANSWER
from threadline.dialog.tools import ToolCall

LOOK_UP = ToolCall("c1", "look", "{}")
LEAVE = ToolCall("c3", "hang_up", "{}")
INSTEAD = "I may not say that."


def answered(*, done: bool = True, brain: object = TOOLED) -> Call:
    """Clauses 2, 3 and 4 answer "Card?" and are on their way."""
    call = greeted(brain)
    call.turn(1, "Card?")
    call.tell(Delta(1, "Your card. It is 4111. All right? "))
    if done:
        call.tell(AskDone(1))
    return call


def guards(orders: list[Output]) -> list[bool]:
    return [order.guard for order in orders if isinstance(order, Say)]


def test_a_brains_words_are_guarded_and_our_own_are_not() -> None:
    call = Call(TOOLED)
    assert guards(call.tell(Answered())) == [True]
    call.hear_all()
    assert guards(call.tell(Quiet(1, last=False))) == [False]
    call.turn(1, "Hm?")
    assert guards(call.tell(Delta(1, "Yes? "), AskDone(1))) == [True]
    assert guards(call.tell(TookFloor(2), TurnEnded(2, None))) == [False]
    call.turn(3, "Look!")
    assert guards(call.tell(ToolsWanted(2, (LOOK_UP,)), AskDone(2), ToolSlow(1))) == [False]
    local = greeted(Echo())
    assert guards(local.turn(1, "a")) == [True]


def test_a_clause_is_replaced_and_what_came_after_it_said_again() -> None:
    call = answered()
    call.tell(ClauseHeard(1, 2))
    assert call.tell(Guarded(3, INSTEAD, stop=False)) == [
        Drop(1, 3),
        Say(1, 5, INSTEAD, guard=False),
        Say(1, 6, "All right?"),
        EndOfReply(1, 6),
    ]
    call.tell(ClauseHeard(1, 6))
    assert call.talk.transcript()[-1] == Message("assistant", f"Your card. {INSTEAD} All right?")


def test_a_clause_is_left_out() -> None:
    call = answered()
    assert call.tell(Guarded(3, " ", stop=False)) == [
        Drop(1, 3),
        Say(1, 5, "All right?"),
        EndOfReply(1, 5),
    ]


def test_the_last_clause_is_left_out() -> None:
    call = answered()
    assert call.tell(Guarded(4, "", stop=False)) == [Drop(1, 4), EndOfReply(1, 3)]


def test_a_guard_stops_the_answer_and_its_request() -> None:
    call = answered(done=False)
    assert call.tell(Guarded(3, INSTEAD, stop=True)) == [
        CancelAsk(1),
        Drop(1, 3),
        Say(1, 5, INSTEAD, guard=False),
        EndOfReply(1, 5),
    ]
    assert call.tell(Delta(1, "More. "), AskDone(1)) == []
    assert not call.talk.working


def test_an_answer_goes_on_after_a_clause_that_was_left_out() -> None:
    call = answered(done=False)
    assert call.tell(Guarded(4, "", stop=False)) == [Drop(1, 4)]
    assert call.tell(Delta(1, "Anything else? "), AskDone(1)) == [
        Say(1, 5, "Anything else?"),
        EndOfReply(1, 5),
    ]


@pytest.mark.parametrize("stop", [True, False])
def test_an_answer_of_which_nothing_is_left_is_excused(stop: bool) -> None:
    call = greeted(TOOLED)
    call.turn(1, "Card?")
    call.tell(Delta(1, "4111."), AskDone(1))
    assert call.tell(Guarded(2, "", stop=stop)) == [
        Drop(1, 2),
        Say(1, 3, NO_ANSWER[0], guard=False),
        EndOfReply(1, 3),
    ]


def test_a_guard_may_speak_twice() -> None:
    call = answered()
    call.tell(Guarded(2, "", stop=False))  # 5 and 6 are said instead of 3 and 4
    assert call.tell(Guarded(3, "", stop=False), Guarded(4, INSTEAD, stop=True)) == []
    assert call.tell(Guarded(5, "", stop=False))[1:] == [Say(1, 7, "All right?"), EndOfReply(1, 7)]


def test_what_is_said_again_is_guarded_as_it_was() -> None:
    call = answered()
    call.tell(Guarded(3, INSTEAD, stop=False))
    assert call.tell(Guarded(2, "", stop=False))[1:3] == [
        Say(1, 7, INSTEAD, guard=False),
        Say(1, 8, "All right?", guard=True),
    ]


def test_our_own_words_are_nobodys_to_replace() -> None:
    call = greeted(TOOLED)
    call.tell(Quiet(1, last=True))
    assert call.tell(Guarded(2, "", stop=True)) == []


def test_a_guard_that_is_too_late_changes_nothing() -> None:
    call = answered()
    call.tell(ClauseHeard(1, 3))
    assert call.tell(Guarded(3, INSTEAD, stop=True)) == []
    call.tell(TookFloor(2))
    assert call.tell(Guarded(4, INSTEAD, stop=True)) == []
    call.tell(TurnEnded(2, "And?"))
    assert call.tell(Guarded(4, INSTEAD, stop=True), Guarded(99, "", stop=True)) == []


def test_a_clause_that_the_voice_could_not_speak_may_still_stop_the_answer() -> None:
    call = answered()
    call.tell(SpeechFailed(1, 3))
    assert call.says(Guarded(3, INSTEAD, stop=True)) == INSTEAD


def test_a_dropped_clause_is_not_said_again_after_a_noise() -> None:
    call = answered()
    call.tell(Guarded(3, INSTEAD, stop=False), TookFloor(2), Cut(1, 2, 0))
    out = call.tell(TurnEnded(2, ""))
    assert [order.text for order in out if isinstance(order, Say)] == [
        "Your card.",
        INSTEAD,
        "All right?",
    ]
    assert guards(out) == [True, False, True]


def test_nothing_heard_of_a_dropped_clause_whatever_the_marks_say() -> None:
    call = answered()
    for clause in (2, 3, 4):
        call.tell(ClauseSpoken(clause, 1000))
    call.tell(Guarded(3, "", stop=True), ClauseHeard(1, 3), ClauseHeard(1, 4))
    assert call.talk.heard(3) == call.talk.heard(4) == ""


def test_a_stop_while_tools_are_at_work_ends_the_wait() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Card?")
    call.tell(Delta(1, "It is 4111. "), ToolsWanted(1, (LOOK_UP,)), AskDone(1))
    assert call.says(Guarded(2, INSTEAD, stop=True)) == INSTEAD
    assert not call.talk.working
    assert call.tell(ToolDone(1, "Free.")) == []
    messages = call.asks(TookFloor(2), TurnEnded(2, "And?")).messages
    assert Message("tool", "Free.", answers="c1") in messages


def test_a_replacement_while_tools_are_at_work_does_not() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Card?")
    call.tell(Delta(1, "It is 4111. "), ToolsWanted(1, (LOOK_UP,)), AskDone(1))
    assert call.tell(Guarded(2, INSTEAD, stop=False))[1:] == [
        Say(1, 3, INSTEAD, guard=False),
        EndOfReply(1, 3),
    ]
    assert call.asks(ToolDone(1, "Free.")).ask == 2


def test_the_call_still_ends_after_what_is_left_of_a_goodbye() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Bye.")
    call.tell(Delta(1, "Bye. Your card is 4111."), ToolsWanted(1, (LEAVE,)), AskDone(1))
    assert call.tell(Guarded(3, "", stop=True))[-1] == HangUp(1, 2)
    assert call.tell(Guarded(2, "", stop=True))[-1] == HangUp(1, 0)


def test_an_answer_behind_the_one_at_fault_is_said_again_too() -> None:
    call = answered()
    assert call.asks(Keyed("1")).ask == 2
    call.tell(Delta(2, "You keyed one. "))
    assert call.tell(Guarded(3, INSTEAD, stop=True)) == [
        Drop(1, 3),
        Say(1, 6, INSTEAD, guard=False),
        Say(1, 7, "You keyed one."),
    ]
    assert call.talk.asking  # it is another answer
    assert call.tell(AskDone(2)) == [EndOfReply(1, 7)]


def test_keys_that_waited_for_a_stopped_answer_are_answered() -> None:
    call = answered(done=False)
    assert call.tell(Keyed("1")) == []
    ask = call.asks(Guarded(3, INSTEAD, stop=True))
    assert ask.messages[-1] == Message("user", "(keyed 1)")
    assert ask.messages[-2] == Message("assistant", f"Your card. {INSTEAD}")  # on its way


def test_a_filler_on_its_way_is_not_said_again() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Card?")
    call.tell(ToolsWanted(1, (LOOK_UP,)), AskDone(1), ToolSlow(1), ToolDone(1, "x"))
    call.tell(Delta(2, "It is 4111. "))
    assert call.tell(Guarded(2, "", stop=False)) == []  # the filler itself is nobody's text
    assert call.tell(Guarded(3, INSTEAD, stop=False))[1:] == [Say(1, 4, INSTEAD, guard=False)]


def test_a_filler_said_after_a_clause_that_failed_goes_with_it() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Card?")
    call.tell(Delta(1, "It is 4111. "), ToolsWanted(1, (LOOK_UP,)), AskDone(1))
    call.tell(SpeechFailed(1, 2), ToolSlow(1))
    assert call.tell(Guarded(2, INSTEAD, stop=False)) == [
        Drop(1, 2),
        Say(1, 4, INSTEAD, guard=False),
        EndOfReply(1, 4),
    ]
