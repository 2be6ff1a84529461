"""Turns that are not plain words: a model that fails, keys, and nobody at all."""

from __future__ import annotations

from one_call import Call, Echo, answering, greeted

from threadline.dialog.brain import RemoteBrain
from threadline.dialog.events import (
    Ask,
    AskDone,
    AskFailed,
    CancelAsk,
    Cut,
    Delta,
    EndOfReply,
    HangUp,
    Input,
    Keyed,
    Quiet,
    Say,
    TookFloor,
    TurnEnded,
)
from threadline.dialog.history import Message
from threadline.dialog.phrases import (
    FAILED,
    NUDGES,
    PARTING,
)

# --- the fallback ---------------------------------------------------------------------------


def spared(events: list[Input] | None = None) -> Call:
    """The model has failed the turn "a" after these, and Echo stands in for it."""
    call = greeted(RemoteBrain("Hello.", "x", fallback=Echo()))
    call.turn(1, "a")
    call.tell(*(events or []), AskFailed(1, "429"))
    return call


def test_a_model_that_fails_before_it_said_anything_is_stood_in_for() -> None:
    call = spared()
    assert call.out[-2:] == [Say(1, 2, "a."), EndOfReply(1, 2)]
    assert call.talk.state == ("a",)
    call.hear_all()
    ask = call.asks(TookFloor(2), TurnEnded(2, "b"))  # the next turn tries the model again
    assert ask.messages[-2:] == (Message("assistant", "a."), Message("user", "b"))
    assert call.says(AskFailed(2, "429")) == "a/b."


def test_text_that_was_not_said_yet_is_nothing_said() -> None:
    assert spared([Delta(1, "We are op")]).out[-2] == Say(1, 2, "a.")


def test_a_half_said_answer_is_not_said_again_by_somebody_else() -> None:
    call = spared([Delta(1, "We are. Op")])
    assert [order.text for order in call.out if isinstance(order, Say)][1:] == [
        "We are.",
        FAILED[0],
    ]
    assert call.talk.state == ()


def test_the_fallbacks_answer_that_nobody_heard_is_taken_back() -> None:
    call = spared()
    call.tell(TookFloor(2), Cut(1, 0, 0), TurnEnded(2, "b"))
    assert call.talk.state == ()  # the model is asked now
    assert call.says(AskFailed(2, "429")) == "a b."
    call.hear_all()
    call.tell(TookFloor(3), TurnEnded(3, "c"), Delta(3, "Yes."), AskDone(3))
    call.hear_all()
    call.tell(TookFloor(4), TurnEnded(4, "d"))
    assert call.says(AskFailed(4, "429")) == "a b/d."  # of "c" it knows nothing


def test_the_fallback_may_hang_up() -> None:
    call = greeted(RemoteBrain("Hello.", "x", fallback=Echo()))
    call.turn(1, "bye")
    assert call.tell(AskFailed(1, "429"))[-1] == HangUp(1, 2)


# --- keys -----------------------------------------------------------------------------------


def test_keys_are_a_turn() -> None:
    call = greeted()
    ask = call.asks(Keyed("1234"))
    assert ask.messages[-1] == Message("user", "(keyed 1234)")
    assert call.tell(Delta(1, "Thank you."), AskDone(1)) == [
        Say(0, 2, "Thank you."),
        EndOfReply(0, 2),
    ]
    assert greeted(Echo()).says(Keyed("12")) == "(keyed 12)."
    assert greeted().tell(Keyed(" ")) == []


def test_the_answer_to_keys_follows_what_is_being_said() -> None:
    call = answering()
    call.tell(AskDone(1))
    ask = call.asks(Keyed("1"))
    assert ask.messages[-2:] == (
        Message("assistant", "It is open. Come in. Sit down."),  # on its way to the ear
        Message("user", "(keyed 1)"),
    )
    assert call.tell(Delta(2, "One. ")) == [Say(1, 5, "One.")]
    assert call.talk.transcript()[-1] == Message("user", "Open? (keyed 1)")  # nothing heard yet


def test_keys_wait_for_the_end_of_an_answer_that_has_begun() -> None:
    call = answering()
    assert call.tell(Keyed("1")) == []
    out = call.tell(Delta(1, "Relax."), AskDone(1))
    assert out[:2] == [Say(1, 5, "Relax."), EndOfReply(1, 5)]
    assert isinstance(out[2], Ask)
    assert out[2].messages[-1].text == "(keyed 1)"


def test_keys_before_an_answer_has_begun_are_answered_with_the_words() -> None:
    call = greeted()
    call.turn(1, "My number is")
    out = call.tell(Keyed("1234"))
    assert out[0] == CancelAsk(1)
    assert isinstance(out[1], Ask)
    assert out[1].messages[-1].text == "My number is (keyed 1234)"


def test_keys_of_a_caller_who_speaks_are_kept_until_his_turn_ends() -> None:
    call = greeted()
    assert call.tell(TookFloor(1), Keyed("12")) == []
    assert call.asks(TurnEnded(1, "That was it.")).messages[-1].text == "(keyed 12) That was it."
    call = greeted()
    call.tell(TookFloor(1), Keyed("12"))
    assert call.asks(TurnEnded(1, "")).messages[-1].text == "(keyed 12)"


def test_keys_pressed_over_a_goodbye_do_not_keep_the_call() -> None:
    call = greeted(Echo())
    call.turn(1, "bye")
    assert call.tell(Keyed("5"))[-1] == HangUp(1, 3)


# --- quiet ----------------------------------------------------------------------------------


def test_nudges_vary_and_are_the_agents_words() -> None:
    call = greeted()
    said = []
    for times in (1, 2, 3):
        said.append(call.says(Quiet(times, last=False)))
        call.hear_all()
    assert tuple(said) == NUDGES
    assert call.talk.transcript()[-1].text == " ".join(["Hello there.", *said])


def test_the_last_one_says_goodbye_and_hangs_up_after_it() -> None:
    call = greeted()
    assert call.tell(Quiet(2, last=True)) == [
        Say(0, 2, PARTING[0], guard=False),
        EndOfReply(0, 2),
        HangUp(0, 2),
    ]
    assert call.tell(Quiet(3, last=True)) == []


def test_a_caller_who_speaks_after_all_is_answered() -> None:
    call = greeted()
    call.tell(Quiet(2, last=True), TookFloor(1), Cut(0, 2, 0))
    call.tell(TurnEnded(1, "I'm here."), Delta(1, "Good."))
    assert not any(isinstance(order, HangUp) for order in call.tell(AskDone(1)))


def test_quiet_is_no_quiet_while_anybody_has_something_to_do() -> None:
    call = greeted()
    call.tell(TookFloor(1))
    assert call.tell(Quiet(1, last=True)) == []
    call.tell(TurnEnded(1, "Open?"))
    assert call.tell(Quiet(1, last=True)) == []
    call.tell(Delta(1, "Yes."), AskDone(1))
    assert call.says(Quiet(1, last=False)) == NUDGES[0]


def test_a_noise_over_a_nudge_says_it_again() -> None:
    call = greeted()
    call.tell(Quiet(1, last=False), TookFloor(1), Cut(0, 2, 0))
    assert call.says(TurnEnded(1, "")) == NUDGES[0]
