"""Tools in a call: several at once, round after round, late, slow, and hanging up."""

from __future__ import annotations

import pytest
from one_call import LOOK, SYSTEM, TOOLED, Call, greeted

from threadline.dialog.events import (
    AskDone,
    AskFailed,
    CancelAsk,
    ClauseHeard,
    Cut,
    Delta,
    EndOfReply,
    HangUp,
    Keyed,
    RunTool,
    Say,
    SpeechFailed,
    TookFloor,
    ToolDone,
    ToolSlow,
    ToolsWanted,
    TurnEnded,
)
from threadline.dialog.history import CARRY_ON, NOT_FINISHED, Message
from threadline.dialog.phrases import FILLERS, GOODBYE, NO_ANSWER
from threadline.dialog.tools import (
    ENDING,
    MAX_CALLS,
    MAX_ROUNDS,
    MAX_RUNNING,
    NOT_ENDED,
    TOO_MANY_ROUNDS,
    TOO_MANY_RUNNING,
    ToolCall,
)

LOOK_UP = ToolCall("c1", "look", '{"day": "Friday"}')
BOOK_IT = ToolCall("c2", "book", "{}")
LEAVE = ToolCall("c3", "hang_up", "{}")
GREETING = Message("assistant", "Hello there.")


def wanting(*calls: ToolCall, text: str = "") -> Call:
    """The caller asked "Friday?" and the model wants these run."""
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    if text:
        call.tell(Delta(1, text))
    call.tell(ToolsWanted(1, calls), AskDone(1))
    return call


def test_tools_go_with_the_request() -> None:
    call = greeted(TOOLED)
    assert call.asks(TookFloor(1), TurnEnded(1, "Friday?")).tools == TOOLED.tools


def test_all_are_run_at_once_and_the_model_goes_on_when_the_last_has_answered() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    assert call.tell(ToolsWanted(1, (LOOK_UP, BOOK_IT))) == [
        RunTool(1, LOOK_UP),
        RunTool(2, BOOK_IT),
    ]
    assert call.tell(ToolDone(2, "Booked.")) == []
    assert call.tell(AskDone(1)) == []
    assert call.talk.working
    assert not call.talk.asking
    ask = call.asks(ToolDone(1, "", "Nobody answers."))
    assert ask.tools == TOOLED.tools
    assert ask.messages == (
        SYSTEM,
        GREETING,
        Message("user", "Friday?"),
        Message("assistant", "", (LOOK_UP, BOOK_IT)),
        Message("tool", "Error: Nobody answers.", answers="c1"),
        Message("tool", "Booked.", answers="c2"),
    )
    assert call.tell(Delta(2, "It is done."), AskDone(2)) == [
        Say(1, 2, "It is done."),
        EndOfReply(1, 2),
    ]
    assert not call.talk.working


def test_results_that_come_before_the_answer_is_complete_wait_for_its_end() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    assert call.jobs(ToolsWanted(1, (LOOK_UP,)), ToolDone(1, "Free.")) == [1]
    assert call.asks(AskDone(1)).messages[-1].text == "Free."


def test_text_before_the_call_is_spoken_and_ended_and_told_to_the_model() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    assert call.tell(Delta(1, "Let me look"), ToolsWanted(1, (LOOK_UP,)), AskDone(1)) == [
        Say(1, 2, "Let me look"),
        RunTool(1, LOOK_UP),
        EndOfReply(1, 2),
    ]
    ask = call.asks(ToolDone(1, "Free."))
    assert ask.messages[-2:] == (
        Message("assistant", "Let me look", (LOOK_UP,)),  # on its way to the ear
        Message("tool", "Free.", answers="c1"),
    )
    assert call.talk.transcript()[-1].role == "user"  # and not heard yet


def test_an_unknown_tool_is_not_run_and_the_model_is_told() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    out = call.tell(ToolsWanted(1, (ToolCall("x", "fly", ""),)))
    assert out == []
    assert "no tool named fly" in call.asks(AskDone(1)).messages[-1].text


def test_calls_above_the_limit_are_as_if_not_made() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    many = tuple(ToolCall(f"c{n}", "look", "{}") for n in range(MAX_CALLS + 3))
    assert len(call.jobs(ToolsWanted(1, many), ToolsWanted(1, many))) == MAX_CALLS
    call.tell(AskDone(1))
    done = [ToolDone(job, "ok") for job in range(1, MAX_CALLS + 1)]
    assert len(call.asks(*done).messages[3].calls) == MAX_CALLS


def test_rounds_are_bounded_and_model_and_caller_are_told() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    for n in range(1, MAX_ROUNDS + 1):
        (job,) = call.jobs(ToolsWanted(n, (LOOK_UP,)), AskDone(n))
        assert call.asks(ToolDone(job, "Hm.")).ask == n + 1
    n = MAX_ROUNDS + 1
    assert call.jobs(ToolsWanted(n, (LOOK_UP,))) == []
    assert call.asks(AskDone(n)).messages[-1].text == TOO_MANY_ROUNDS
    assert call.tell(ToolsWanted(n + 1, (LOOK_UP,))) == []
    assert call.says(AskDone(n + 1)) == NO_ANSWER[0]
    assert not call.talk.working
    # The next turn has as many again.
    call.hear_all()
    ask = call.asks(TookFloor(2), TurnEnded(2, "Then Sunday.")).ask
    assert call.jobs(ToolsWanted(ask, (LOOK_UP,)))


def test_tools_that_nobody_waits_for_any_more_are_bounded() -> None:
    call = greeted(TOOLED)
    many = tuple(ToolCall(f"c{n}", "look", "{}") for n in range(MAX_CALLS))
    jobs: list[int] = []
    for epoch in range(1, MAX_RUNNING):
        ask = call.asks(TookFloor(epoch), TurnEnded(epoch, "And?")).ask
        jobs += call.jobs(ToolsWanted(ask, many))
    assert len(jobs) == MAX_RUNNING
    assert TOO_MANY_RUNNING in [message.text for message in call.asks(AskDone(ask)).messages]


def test_an_answer_that_breaks_after_its_calls_goes_on_with_them() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    assert call.tell(ToolsWanted(1, (LOOK_UP,)), AskFailed(1, "reset")) == [RunTool(1, LOOK_UP)]
    assert call.asks(ToolDone(1, "Free.")).messages[-1].text == "Free."


def test_the_answer_after_the_tools_may_not_be_empty() -> None:
    call = wanting(LOOK_UP, text="Let me look.")
    call.tell(ToolDone(1, "Free."))
    assert call.says(AskDone(2)) == NO_ANSWER[0]


@pytest.mark.parametrize("event", [ToolDone(9, "x"), ToolSlow(9), ToolsWanted(9, (LOOK_UP,))])
def test_tools_of_nobody_are_ignored(event: ToolDone) -> None:
    call = wanting(LOOK_UP)
    assert call.tell(event) == []
    assert call.tell(ToolsWanted(1, ())) == []


def test_a_result_counts_once() -> None:
    call = wanting(LOOK_UP)
    assert call.asks(ToolDone(1, "Free.")).messages[-1].text == "Free."
    assert call.tell(ToolDone(1, "Taken.")) == []


def test_an_answer_that_asks_bit_by_bit_is_one_round() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    for n in range(1, MAX_CALLS + 1):
        assert call.jobs(ToolsWanted(1, (LOOK_UP,))) == [n]


def test_a_model_that_only_promises_in_its_last_round_is_spoken_for() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    for n in range(1, MAX_ROUNDS + 1):
        call.tell(ToolsWanted(n, (LOOK_UP,)), AskDone(n), ToolDone(n, "Hm."))
    call.tell(ToolsWanted(MAX_ROUNDS + 1, (LOOK_UP,)), AskDone(MAX_ROUNDS + 1))
    last = MAX_ROUNDS + 2
    out = call.says(Delta(last, "Let me look."), ToolsWanted(last, (LOOK_UP,)), AskDone(last))
    assert out == f"Let me look. {NO_ANSWER[0]}"


# --- interrupted ----------------------------------------------------------------------------


def test_a_result_after_an_interruption_is_recorded_and_not_spoken() -> None:
    call = wanting(LOOK_UP)
    call.tell(TookFloor(2), Cut(1, 0, 0))
    assert call.tell(ToolDone(1, "Free.")) == []
    ask = call.asks(TurnEnded(2, "Or Sunday?"))
    assert ask.messages[-3:] == (
        Message("assistant", "", (LOOK_UP,)),
        Message("tool", "Free.", answers="c1"),
        Message("user", "Or Sunday?"),
    )


def test_a_tool_still_at_work_is_told_as_such_and_corrected_later() -> None:
    call = wanting(LOOK_UP)
    ask = call.asks(TookFloor(2), TurnEnded(2, "Or Sunday?"))
    assert ask.messages[-2] == Message("tool", NOT_FINISHED, answers="c1")
    assert call.tell(ToolDone(1, "Free.")) == []
    call.tell(Delta(2, "Well. "), AskDone(2))
    ask = call.asks(TookFloor(3), TurnEnded(3, "And?"))
    assert Message("tool", "Free.", answers="c1") in ask.messages


def test_a_noise_while_tools_are_at_work_goes_on_waiting_for_them() -> None:
    call = wanting(LOOK_UP)
    call.tell(ToolSlow(1), TookFloor(2), Cut(1, 2, 0))
    assert call.tell(TurnEnded(2, "")) == [
        Say(2, 3, FILLERS[1], filler=True, guard=False),
        EndOfReply(2, 3),
    ]
    assert call.talk.working
    call.tell(ToolSlow(1))
    assert call.says(ToolDone(1, "Free."), Delta(2, "It is free."), AskDone(2)) == "It is free."


def test_a_noise_after_the_tools_have_answered_asks_for_the_rest() -> None:
    call = wanting(LOOK_UP)
    call.tell(TookFloor(2), ToolDone(1, "Free."))
    ask = call.asks(TurnEnded(2, ""))
    assert ask.messages[-1] == Message("tool", "Free.", answers="c1")
    call = wanting(LOOK_UP)
    call.tell(ToolDone(1, "Free."), Delta(2, "It is free. Come"), ClauseHeard(1, 2), TookFloor(2))
    assert call.asks(TurnEnded(2, "")).messages[-2:] == (
        Message("assistant", "It is free."),
        Message("user", CARRY_ON),
    )


def test_keys_pressed_meanwhile_are_answered_with_the_result() -> None:
    call = wanting(LOOK_UP)
    assert call.tell(Keyed("12")) == []
    ask = call.asks(ToolDone(1, "Free."))
    assert ask.messages[-2:] == (
        Message("tool", "Free.", answers="c1"),
        Message("user", "(keyed 12)"),
    )
    assert call.tell(Delta(2, "Both done."), AskDone(2))[-1] == EndOfReply(1, 2)
    assert not call.talk.working


# --- slow -----------------------------------------------------------------------------------


def test_a_slow_tool_is_bridged_once() -> None:
    call = wanting(LOOK_UP, BOOK_IT)
    assert call.tell(ToolSlow(1)) == [
        Say(1, 2, FILLERS[0], filler=True, guard=False),
        EndOfReply(1, 2),
    ]
    call.hear_all()
    assert call.tell(ToolSlow(2), ToolSlow(1)) == []
    ask = call.asks(ToolDone(1, "a"), ToolDone(2, "b"))
    assert ask.messages[-3].text == FILLERS[0]  # the caller heard it, before the results
    # The next wait has its own, in other words.
    call.tell(ToolsWanted(2, (LOOK_UP,)), AskDone(2))
    assert call.says(ToolSlow(3)) == FILLERS[1]


def test_no_filler_while_something_is_to_be_heard() -> None:
    call = wanting(LOOK_UP, text="Let me look.")
    assert call.tell(ToolSlow(1)) == []
    call.tell(ClauseHeard(1, 2))
    assert call.says(ToolSlow(1)) == FILLERS[0]


def test_no_filler_for_a_caller_who_speaks_or_a_tool_nobody_waits_for() -> None:
    call = wanting(LOOK_UP)
    call.tell(TookFloor(2))
    assert call.tell(ToolSlow(1)) == []
    call.tell(TurnEnded(2, "Or Sunday?"))
    assert call.tell(ToolSlow(1)) == []


def test_a_filler_is_no_part_of_the_answer() -> None:
    call = wanting(LOOK_UP)
    call.tell(ToolSlow(1), ToolDone(1, "Free."), Delta(2, "It is free."), AskDone(2))
    call.tell(TookFloor(2), Cut(1, 2, 0))
    assert call.says(TurnEnded(2, "")) == "It is free."  # and not "One moment"
    call = wanting(LOOK_UP)
    call.tell(ToolSlow(1), ToolDone(1, "Free."), Delta(2, "It is free."), AskDone(2))
    assert call.says(SpeechFailed(1, 3)) != ""  # a heard filler does not make up for it


# --- hanging up -----------------------------------------------------------------------------


def test_hanging_up_follows_the_last_clause() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Bye.")
    assert call.tell(Delta(1, "Bye-bye!"), ToolsWanted(1, (LEAVE,)), AskDone(1)) == [
        Say(1, 2, "Bye-bye!"),
        EndOfReply(1, 2),
        HangUp(1, 2),
    ]
    assert not call.talk.working


def test_hanging_up_without_a_word_says_goodbye() -> None:
    call = wanting(LEAVE)
    assert call.out[-3:] == [
        Say(1, 2, GOODBYE[0], guard=False),
        EndOfReply(1, 2),
        HangUp(1, 2),
    ]


def test_hanging_up_waits_for_the_other_tools_of_its_answer() -> None:
    call = wanting(BOOK_IT, LEAVE, text="All right.")
    assert not any(isinstance(order, HangUp) for order in call.out)
    ask = call.asks(ToolDone(1, "Booked."))
    assert ask.messages[-1] == Message("tool", ENDING, answers="c3")
    assert call.tell(Delta(2, "Booked. Bye!"), AskDone(2))[-1] == HangUp(1, 4)


def test_the_end_of_what_was_said_is_told_once() -> None:
    call = wanting(BOOK_IT, text="Goodbye.")
    assert call.out[-1] == EndOfReply(1, 2)
    call.tell(ToolDone(1, "Booked."))
    assert call.tell(ToolsWanted(2, (LEAVE,)), AskDone(2)) == [HangUp(1, 2)]


def test_words_over_the_goodbye_keep_the_call_and_the_model_knows() -> None:
    call = wanting(LEAVE, text="Goodbye!")
    ask = call.asks(TookFloor(2), Cut(1, 2, 0), TurnEnded(2, "Wait!"))
    assert ask.messages[-2] == Message("tool", NOT_ENDED, answers="c3")
    assert not any(isinstance(o, HangUp) for o in call.tell(Delta(2, "Yes?"), AskDone(2)))


def test_a_noise_over_the_goodbye_does_not() -> None:
    call = wanting(LEAVE, text="Goodbye!")
    call.tell(TookFloor(2), Cut(1, 2, 0))
    assert call.tell(TurnEnded(2, ""))[-1] == HangUp(2, 3)


def test_a_goodbye_that_was_heard_before_another_part_failed_ends_the_call_at_once() -> None:
    call = wanting(LEAVE, text="Goodbye! See you. ")
    call.tell(ClauseHeard(1, 2))
    assert call.tell(SpeechFailed(1, 3)) == [HangUp(1, 0)]


def test_who_may_not_hang_up_does_not() -> None:
    call = greeted(TOOLED.__class__("Hello.", "x", tools=(LOOK,)))
    call.turn(1, "Bye.")
    assert call.tell(Delta(1, "Bye."), ToolsWanted(1, (LEAVE,)))[-1] == Say(1, 2, "Bye.")
    ask = call.asks(AskDone(1))
    assert "no tool named hang_up" in ask.messages[-1].text


def test_an_interrupted_answer_is_cancelled_while_its_tools_go_on() -> None:
    call = greeted(TOOLED)
    call.turn(1, "Friday?")
    call.tell(ToolsWanted(1, (LOOK_UP,)))
    assert call.tell(TookFloor(2)) == [CancelAsk(1)]
    assert call.tell(ToolDone(1, "Free.")) == []
