"""One call, told fact by fact: what is said, asked, and remembered as heard."""

from __future__ import annotations

import pytest
from one_call import SYSTEM, Call, Echo, answering, greeted

from threadline.dialog.brain import RemoteBrain
from threadline.dialog.events import (
    Answered,
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
    HangUp,
    Say,
    SpeechFailed,
    TookFloor,
    TurnEnded,
)
from threadline.dialog.history import CARRY_ON, Message
from threadline.dialog.phrases import (
    FAILED,
    GO_ON,
    NO_ANSWER,
    NOT_CAUGHT,
    UNSPOKEN,
)
from threadline.dialog.scripted import Booking, Reception, Scripted


def test_greets_once() -> None:
    call = Call()
    assert call.tell(Answered()) == [Say(0, 1, "Hello there."), EndOfReply(0, 1)]
    assert call.tell(Answered()) == []


@pytest.mark.parametrize("greeting", ["", "  "])
def test_without_a_greeting_the_caller_speaks_first(greeting: str) -> None:
    assert Call(RemoteBrain(greeting, "x")).tell(Answered()) == []


def test_a_caller_who_speaks_first_is_not_greeted_over() -> None:
    assert Call().tell(TookFloor(1), Answered()) == []


def test_a_slot_may_begin_at_any_epoch() -> None:
    call = Call(epoch=40)
    assert call.tell(Answered())[0] == Say(40, 1, "Hello there.")
    assert call.tell(TookFloor(40)) == []
    assert call.asks(TookFloor(41), TurnEnded(41, "Hi.")).ask == 1


def test_a_turn_asks_with_the_talk_so_far() -> None:
    call = greeted()
    assert call.turn(1, " Are you open? ") == [
        Ask(1, (SYSTEM, Message("assistant", "Hello there."), Message("user", "Are you open?")))
    ]
    assert call.talk.asking


def test_clauses_are_said_while_the_answer_is_being_written() -> None:
    call = greeted()
    call.turn(1, "Open?")
    assert call.tell(Delta(1, "Yes, we")) == [Say(1, 2, "Yes,")]
    assert call.tell(Delta(1, " are. Until")) == [Say(1, 3, "we are.")]
    assert call.tell(Delta(1, " ten."), AskDone(1)) == [Say(1, 4, "Until ten."), EndOfReply(1, 4)]
    assert not call.talk.asking


def test_an_answer_without_words_is_answered_for() -> None:
    call = greeted()
    call.turn(1, "Open?")
    assert call.says(Delta(1, " \n "), AskDone(1)) == NO_ANSWER[0]


def test_taking_the_floor_cancels_and_silences_the_answer() -> None:
    call = answering()
    assert call.tell(TookFloor(2)) == [CancelAsk(1)]
    assert call.tell(Delta(1, "Late words. "), AskDone(1), AskFailed(1, "late")) == []


def test_interrupting_the_greeting_leaves_what_was_heard_of_it() -> None:
    call = Call()
    call.tell(Answered(), ClauseSpoken(1, 1000), TookFloor(1), Cut(0, 1, 600))
    ask = call.asks(TurnEnded(1, "A table, please."))
    assert ask.messages[1:] == (
        Message("assistant", "Hello"),
        Message("user", "A table, please."),
    )


def test_history_holds_what_was_heard_of_an_interrupted_answer() -> None:
    call = answering()
    call.tell(ClauseHeard(1, 2), TookFloor(2), Cut(1, 3, 700))
    ask = call.asks(TurnEnded(2, "Thanks."))
    assert ask.messages[3:] == (
        Message("assistant", "It is open. Come"),
        Message("user", "Thanks."),
    )


def test_a_cut_that_comes_late_still_counts() -> None:
    call = answering()
    assert call.asks(TookFloor(2), TurnEnded(2, "And?")).messages[-1].text == "Open? And?"
    call.tell(Cut(1, 3, 1000))
    assert call.talk.transcript()[-2:] == [
        Message("assistant", "It is open. Come in."),
        Message("user", "And?"),
    ]


def test_two_turns_without_an_answer_are_one() -> None:
    call = greeted()
    call.turn(1, "A table")
    ask = call.asks(TookFloor(2), Cut(1, 0, 0), TurnEnded(2, "for four."))
    assert ask.ask == 2
    assert ask.messages[-1] == Message("user", "A table for four.")


def test_words_of_a_caller_who_goes_on_speaking_wait_for_the_rest() -> None:
    call = greeted()
    assert call.tell(TookFloor(1), TookFloor(2), TurnEnded(1, "A table")) == []
    assert call.asks(TurnEnded(2, "for four.")).messages[-1].text == "A table for four."


def test_words_that_overtake_the_news_of_them_take_the_floor() -> None:
    call = answering()
    out = call.tell(TurnEnded(2, "Wait."))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Ask)
    assert call.tell(TookFloor(2)) == []


def test_a_second_transcript_of_the_same_turn_is_answered_with_the_first() -> None:
    call = greeted()
    call.turn(1, "A table")
    out = call.tell(TurnEnded(1, "for four."))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Ask)
    assert out[1].messages[-1].text == "A table for four."
    assert call.tell(TurnEnded(1, ""), TurnEnded(1, None)) == []  # the answer is on its way


def test_an_answer_given_up_within_its_epoch_is_ended_for_the_pacer() -> None:
    call = answering()
    assert call.tell(TurnEnded(1, "And Sunday?"))[:2] == [EndOfReply(1, 4), CancelAsk(1)]


# --- no words -----------------------------------------------------------------------------


def test_a_noise_during_a_finished_answer_repeats_what_was_not_heard() -> None:
    call = answering()
    call.tell(AskDone(1), ClauseHeard(1, 2), TookFloor(2), Cut(1, 3, 300))
    assert call.tell(TurnEnded(2, "")) == [
        Say(2, 5, "Come in."),
        Say(2, 6, "Sit down."),
        EndOfReply(2, 6),
    ]
    # And a second noise, in the repetition.
    call.tell(ClauseHeard(2, 5), TookFloor(3), Cut(2, 6, 0))
    assert call.says(TurnEnded(3, "")) == "Sit down."


def test_a_noise_is_answered_even_before_the_cut_is_known() -> None:
    call = answering()
    call.tell(AskDone(1), ClauseHeard(1, 2), TookFloor(2))
    assert call.says(TurnEnded(2, "")) == "Come in. Sit down."


def test_a_noise_during_an_unfinished_answer_asks_for_the_rest() -> None:
    call = answering()
    call.tell(ClauseHeard(1, 2), TookFloor(2), Cut(1, 3, 1000))
    ask = call.asks(TurnEnded(2, ""))
    assert ask.messages[-2:] == (
        Message("assistant", "It is open. Come in."),
        Message("user", CARRY_ON),
    )
    assert call.says(Delta(2, "Sit down."), AskDone(2)) == "Sit down."


def test_a_noise_before_any_of_the_answer_was_heard_asks_again() -> None:
    call = greeted()
    call.turn(1, "Open?")
    assert call.asks(TookFloor(2), TurnEnded(2, "")).messages[-1] == Message("user", "Open?")


def test_a_noise_during_the_greeting_repeats_it() -> None:
    call = Call()
    call.tell(Answered(), TookFloor(1), Cut(0, 1, 20))
    assert call.says(TurnEnded(1, "")) == "Hello there."


def test_noises_when_nothing_is_owed_are_answered_in_changing_words() -> None:
    call = greeted()
    said = []
    for epoch in range(1, 4):
        said.append(call.says(TookFloor(epoch), TurnEnded(epoch, "  ")))
        call.hear_all()
    assert tuple(said) == GO_ON


def test_words_kept_while_the_caller_went_on_are_answered_after_a_noise() -> None:
    call = answering()
    call.tell(AskDone(1), TookFloor(2), Cut(1, 3, 10), TookFloor(3), TurnEnded(2, "And Sunday?"))
    assert call.asks(TurnEnded(3, "")).messages[-1] == Message("user", "And Sunday?")


def test_a_failed_recognition_asks_to_say_it_again() -> None:
    call = greeted()
    assert call.says(TookFloor(1), TurnEnded(1, None)) == NOT_CAUGHT[0]
    assert call.says(TookFloor(2), TurnEnded(2, None)) == NOT_CAUGHT[1]


# --- a model that fails ---------------------------------------------------------------------


def test_a_failed_model_is_excused_each_time_and_asked_again_the_next_turn() -> None:
    call = greeted()
    said = set()
    for n in range(1, 6):
        assert call.asks(TookFloor(n), TurnEnded(n, f"Try {n}.")).ask == n
        said.add(call.says(AskFailed(n, "429")))
        call.hear_all()
    assert said == set(FAILED)
    ask = call.asks(TookFloor(9), TurnEnded(9, "And now?"))
    assert call.says(Delta(ask.ask, "Now it works."), AskDone(ask.ask)) == "Now it works."


def test_a_model_that_fails_midway_has_its_rest_dropped() -> None:
    call = greeted()
    call.turn(1, "Open?")
    call.tell(Delta(1, "We are open. But on Sun"))
    assert call.tell(AskFailed(1, "reset"))[-1] == EndOfReply(1, call.out[-1].clause)
    assert "Sun" not in " ".join(order.text for order in call.out if isinstance(order, Say))


# --- a voice that fails ---------------------------------------------------------------------


def test_a_clause_that_cannot_be_spoken_was_not_heard() -> None:
    call = answering()
    assert call.tell(AskDone(1), SpeechFailed(1, 3))[-1] == EndOfReply(1, 4)
    call.hear_all()
    assert call.talk.transcript()[-1] == Message("assistant", "It is open. Sit down.")


def test_a_reply_that_cannot_be_spoken_at_all_is_excused_once() -> None:
    call = answering()
    call.tell(AskDone(1), SpeechFailed(1, 2), SpeechFailed(1, 3))
    assert call.tell(SpeechFailed(1, 4)) == [
        Say(1, 5, UNSPOKEN[0], guard=False),
        EndOfReply(1, 5),
    ]
    assert call.tell(SpeechFailed(1, 5)) == []


def test_clauses_that_failed_before_the_answer_was_complete_are_excused_at_its_end() -> None:
    call = answering()
    assert call.tell(SpeechFailed(1, 2), SpeechFailed(1, 3), SpeechFailed(1, 4)) == []
    assert call.says(AskDone(1)) == UNSPOKEN[0]


def test_speech_that_failed_in_an_older_epoch_says_nothing() -> None:
    call = answering()
    call.tell(AskDone(1), TookFloor(2))
    assert call.tell(SpeechFailed(1, 2), SpeechFailed(1, 3), SpeechFailed(1, 4)) == []


# --- local brains ---------------------------------------------------------------------------


def test_a_local_brain_answers_at_once() -> None:
    call = greeted(Echo())
    assert call.turn(1, "a") == [Say(1, 2, "a."), EndOfReply(1, 2)]
    assert call.talk.state == ("a",)


def test_an_answer_nobody_heard_is_taken_back() -> None:
    call = greeted(Echo())
    call.turn(1, "a")
    call.tell(TookFloor(2), Cut(1, 0, 0))
    assert call.says(TurnEnded(2, "b")) == "a b."
    assert call.talk.state == ("a b",)


def test_an_answer_that_was_begun_stands() -> None:
    call = greeted(Echo())
    call.turn(1, "one two")
    call.tell(ClauseSpoken(2, 1000), TookFloor(2), Cut(1, 2, 600))
    assert call.says(TurnEnded(2, "b")) == "one two/b."


def test_goodbye_hangs_up_after_its_last_clause() -> None:
    call = greeted(Echo())
    assert call.turn(1, "bye") == [Say(1, 2, "bye."), EndOfReply(1, 2), HangUp(1, 2)]


def test_a_noise_during_the_goodbye_says_it_again_and_still_hangs_up() -> None:
    call = greeted(Echo())
    call.turn(1, "bye")
    call.tell(TookFloor(2), Cut(1, 2, 0))
    assert call.tell(TurnEnded(2, ""))[-1] == HangUp(2, 3)


def test_a_goodbye_that_cannot_be_spoken_hangs_up_all_the_same() -> None:
    call = greeted(Echo())
    call.turn(1, "bye")
    assert call.tell(SpeechFailed(1, 2)) == [HangUp(1, 0)]


def test_no_slot_is_lost_by_interruptions() -> None:
    call = greeted(Scripted())
    call.turn(1, "A table for four")
    call.tell(TookFloor(2), Cut(1, 0, 0), TurnEnded(2, "on Friday at seven."))  # unheard
    call.tell(ClauseHeard(2, call.out[-1].clause - 1))
    call.tell(TookFloor(3), Cut(2, call.out[-1].clause, 20))  # heard in part
    call.tell(TurnEnded(3, "I'm Anna."))
    assert isinstance(call.talk.state, Reception)
    assert call.talk.state.booking == Booking("Friday", "19:00", 4, "Anna")
    assert call.talk.state.asked == "confirm"


# --- the end --------------------------------------------------------------------------------


def test_the_end_cancels_and_nothing_follows() -> None:
    call = answering()
    assert call.tell(CallEnded()) == [CancelAsk(1)]
    assert call.tell(Delta(1, "Late. "), TookFloor(2), TurnEnded(2, "Hello?"), Answered()) == []


def test_events_about_nothing_are_ignored() -> None:
    call = greeted()
    stale = (Delta(0, "x. "), AskDone(0), AskFailed(0, ""), Delta(9, "x. "), AskDone(9))
    assert call.tell(*stale, ClauseHeard(5, 5), Cut(0, 77, 5), SpeechFailed(3, 3)) == []
    assert call.tell(TookFloor(0), ClauseSpoken(77, 1)) == []
