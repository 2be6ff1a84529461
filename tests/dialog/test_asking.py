"""Asking early: what is said at the first silence, and only if the turn ends there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_call import EAGER, LOOK, REMOTE, SYSTEM, Call, greeted

from threadline.dialog.asking import MAX_EARLY, spoken_words
from threadline.dialog.events import (
    Ask,
    AskDone,
    AskFailed,
    CallEnded,
    CancelAsk,
    ClauseHeard,
    ClauseSpoken,
    Cut,
    Delta,
    EndOfReply,
    Keyed,
    Partial,
    RunTool,
    Say,
    TookFloor,
    ToolDone,
    ToolsWanted,
    TurnEnded,
)
from threadline.dialog.history import Message
from threadline.dialog.scripted import Scripted
from threadline.dialog.tools import ToolCall

WANT = ToolCall("c1", "look", "{}")


def guessing(words: str = "Are you open") -> Call:
    """The caller has paused after these words, and request 1 is under way for them."""
    call = greeted(EAGER)
    call.tell(TookFloor(1), Partial(1, words))
    return call


def counted(call: Call) -> tuple[int, int]:
    return call.talk.early_hits, call.talk.early_wasted


def test_a_pause_asks_as_if_the_turn_had_ended() -> None:
    call = greeted(EAGER)
    ask = call.asks(TookFloor(1), Partial(1, " Are you open "))
    talk = (SYSTEM, Message("assistant", "Hello there."), Message("user", "Are you open"))
    assert ask == Ask(1, talk, EAGER.tools, early=True)
    assert call.talk.asking
    assert not call.talk.working  # the caller has the floor
    assert [message.role for message in call.talk.transcript()] == ["assistant"]


def test_nothing_is_said_before_the_turn_is_over_and_all_of_it_then() -> None:
    call = guessing()
    assert call.tell(Delta(1, "Yes, we are. Until t")) == []
    assert call.tell(TurnEnded(1, "Are you open?")) == [
        Say(1, 2, "Yes,"),
        Say(1, 3, "we are."),
    ]
    assert call.tell(Delta(1, "en."), AskDone(1)) == [Say(1, 4, "Until ten."), EndOfReply(1, 4)]
    assert counted(call) == (1, 0)
    assert call.talk.transcript()[-1] == Message("user", "Are you open?")  # as it ended


def test_an_answer_that_was_complete_early_is_said_at_once() -> None:
    call = guessing()
    assert call.tell(Delta(1, "Yes."), AskDone(1)) == []
    assert not call.talk.asking
    assert call.tell(TurnEnded(1, "are you OPEN")) == [Say(1, 2, "Yes."), EndOfReply(1, 2)]
    assert counted(call) == (1, 0)


def test_an_answer_that_has_not_begun_goes_on() -> None:
    call = guessing()
    assert call.tell(TurnEnded(1, "Are you open?")) == []
    assert call.talk.working
    assert call.says(Delta(1, "Yes. ")) == "Yes."


def test_tools_run_only_once_the_turn_is_over() -> None:
    call = guessing()
    assert call.tell(Delta(1, "Let me see"), ToolsWanted(1, (WANT,)), AskDone(1)) == []
    assert call.tell(TurnEnded(1, "Are you open?")) == [
        Say(1, 2, "Let me see"),
        RunTool(1, WANT),
        EndOfReply(1, 2),
    ]
    assert call.asks(ToolDone(1, "Until ten.")).messages[-1].text == "Until ten."


def test_other_words_ask_anew() -> None:
    call = guessing()
    call.tell(Delta(1, "Yes, we are. "))
    out = call.tell(TurnEnded(1, "Are you open on Sunday?"))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Ask)
    assert out[1].messages[-1].text == "Are you open on Sunday?"
    assert not out[1].early
    assert call.tell(Delta(1, "Late. "), AskDone(1)) == []
    assert counted(call) == (0, 1)


def test_a_complete_answer_to_other_words_is_forgotten() -> None:
    call = guessing()
    call.tell(Delta(1, "Yes."), AskDone(1))
    ask = call.asks(TurnEnded(1, "Are you open on Sunday?"))
    assert ask.ask == 2
    assert call.says(Delta(2, "No."), AskDone(2)) == "No."


def test_the_next_pause_asks_for_its_own_words() -> None:
    call = guessing()
    assert call.tell(Partial(1, "are you open.")) == []  # the same
    out = call.tell(Partial(1, "Are you open on Sunday"))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Ask)
    assert out[1].early
    assert out[1].messages[-1].text == "Are you open on Sunday"
    assert call.tell(TurnEnded(1, "Are you open on Sunday?")) == []
    assert counted(call) == (1, 1)


def test_a_pause_without_words_gives_up_the_guess() -> None:
    assert guessing().tell(Partial(1, " ")) == [CancelAsk(1)]


def test_taking_the_floor_gives_up_the_guess() -> None:
    call = guessing()
    assert call.tell(TookFloor(2)) == [CancelAsk(1)]
    assert counted(call) == (0, 1)


def test_the_end_of_the_call_gives_up_the_guess() -> None:
    call = guessing()
    assert call.tell(CallEnded()) == [CancelAsk(1)]
    assert counted(call) == (0, 1)


@pytest.mark.parametrize("text", ["", None])
def test_a_turn_without_words_gives_up_the_guess(text: str | None) -> None:
    call = guessing()
    out = call.tell(TurnEnded(1, text))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Say)
    assert [message.role for message in call.talk.transcript()] == ["assistant"]


def test_words_of_an_earlier_turn_change_the_question() -> None:
    call = greeted(EAGER)
    call.tell(TookFloor(1), TookFloor(2), Partial(2, "for four"))
    out = call.tell(TurnEnded(1, "A table"))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Ask)
    assert out[1].messages[-1].text == "A table for four"
    assert out[1].early
    assert call.tell(TurnEnded(2, "for four.")) == []
    assert counted(call) == (1, 1)


def test_so_do_keys_and_what_was_heard_and_a_tools_result() -> None:
    call = guessing()
    assert call.asks(Keyed("12")).messages[-1].text == "(keyed 12) Are you open"
    call = greeted(EAGER)
    call.turn(1, "Open?")
    call.tell(Delta(1, "Wait. "), ToolsWanted(1, (WANT,)), AskDone(1))
    call.tell(TookFloor(2), Partial(2, "Well"))
    assert call.asks(ToolDone(1, "Until ten.")).messages[-2].text == "Until ten."
    call.tell(ClauseSpoken(2, 1000))
    assert call.asks(Cut(1, 2, 1000)).messages[-3].text == "Wait."
    call = greeted(EAGER)
    call.turn(1, "Open?")
    call.tell(Delta(1, "Yes."), AskDone(1), TookFloor(2), Partial(2, "Well"))
    assert call.tell(ClauseHeard(1, 2)) == []  # noticed when the turn ends
    assert call.asks(TurnEnded(2, "Well")).messages[-2].text == "Yes."


def test_an_early_request_that_fails_is_made_again() -> None:
    call = guessing()
    assert call.tell(AskFailed(1, "429")) == []
    assert call.asks(TurnEnded(1, "Are you open?")).ask == 2
    assert counted(call) == (0, 1)


def test_a_partial_that_overtakes_the_news_takes_the_floor() -> None:
    call = greeted(EAGER)
    assert call.asks(Partial(1, "Hello")).early
    assert call.tell(TookFloor(1)) == []
    assert call.tell(Partial(0, "Old")) == []


def test_partials_after_the_turn_are_late() -> None:
    call = guessing()
    call.tell(TurnEnded(1, "Are you open?"))
    assert call.tell(Partial(1, "Are you open on")) == []


@pytest.mark.parametrize("brain", [REMOTE, Scripted()])
def test_who_does_not_speculate_waits_for_the_end(brain: object) -> None:
    call = greeted(brain)
    assert call.tell(TookFloor(1), Partial(1, "Are you open")) == []
    assert call.tell(TurnEnded(1, "Are you open?")) != []


def test_an_early_answer_without_end_is_given_up() -> None:
    call = guessing()
    out = call.tell(*(Delta(1, "Come in. ") for _ in range(MAX_EARLY + 2)))
    assert out == [CancelAsk(1)]


def test_tools_go_with_every_request() -> None:
    assert LOOK in guessing().asks(TurnEnded(1, "Something else")).tools


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Are you open", " are  you open?", True),
        ("Well, I think so.", "well I think so", True),
        ("It is an e-mail", "it is an e mail", True),
        ("\u201cYes\u201d", "yes", True),
        ("5%", "5", False),
        ("3.5", "3 5", False),
        ("It is 3.", "it is 3", True),
        ("-5", "5", False),
        ("at 7:30", "at 7 30", False),
        ("$5", "5", False),
        ("की", "का", False),
        ("Straße", "STRASSE", True),
        ("I'm", "Im", False),
        ("no", "know", False),
    ],
)
def test_the_same_words(one: str, other: str, same: bool) -> None:
    assert (spoken_words(one) == spoken_words(other)) is same


@given(
    st.lists(st.text("abcäé123", min_size=1), max_size=8), st.text("?!\u2026;\u201c ", max_size=3)
)
def test_marks_and_case_are_no_words(words: list[str], mark: str) -> None:
    plain = " ".join(words)
    assert spoken_words(plain.upper() + mark) == spoken_words(mark + " " + plain)
