"""The receptionist: whole calls as tables, and what holds for any call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.dialog.brain import Answer
from threadline.dialog.scripted import Booking, Reception, Scripted, spoken_time

BRAIN = Scripted()
FULL = Booking("Friday", "19:00", 4, "Anna")


def call(*turns: str, state: Reception | None = None) -> tuple[Reception, list[Answer]]:
    state = state or BRAIN.begin()
    answers = []
    for words in turns:
        state, answer = BRAIN.answer(state, words)
        answers.append(answer)
    return state, answers


def state(booking: Booking, asked: str, **more: object) -> Reception:
    return Reception(booking, asked=asked, last="I said this.", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("turns", "booking"),
    [
        (["A table for four on Friday at seven.", "It's Anna.", "Yes, that's right."], FULL),
        (["A table for four on Friday at seven, my name is Anna.", "Yes."], FULL),
        (
            ["Hi, I'd like to book a table.", "Friday.", "7 p.m.", "For four.", "Anna.", "Yeah."],
            FULL,
        ),
        (["I'm Anna.", "Four people.", "Friday.", "Seven.", "Correct."], FULL),
        (["A table for two on Friday at 7, name is Anna.", "No, four people.", "Yes."], FULL),
        (["For 4 on Friday at 8, I'm Anna.", "No.", "The time.", "Seven.", "Perfect."], FULL),
        (["For 4 on Friday, I'm Anna.", "At seven.", "What are your opening hours?", "Yes"], FULL),
        (["For 4 on Friday, I'm Anna.", "11 a.m.", "seven then", "at 7", "Yes"], FULL),
        (["20 people on Friday at 7, Anna.", "four", "My name is Anna.", "Yes"], FULL),
        (["Do you have vegetarian food?", "Yes.", "Friday", "7", "4", "Anna", "Yes"], FULL),
        (["mumble", "Hello?", "yes", "Friday", "erm", "7", "um", "4", "Anna", "hm", "Yes"], FULL),
    ],
)
def test_a_call_ends_in_the_booking(turns: list[str], booking: Booking) -> None:
    after, answers = call(*turns)
    assert after.booking == booking
    assert after.booked
    assert [answer.hang_up for answer in answers] == [False] * (len(turns) - 1) + [True]
    assert answers[-1].text.endswith("Goodbye!")


def test_the_summary_says_everything() -> None:
    _, answers = call("A table for four on Friday at half past seven, my name is Anna.")
    for part in ("four", "on Friday", "half past seven", "Anna", "right?"):
        assert part in answers[0].text


def test_new_facts_are_said_back() -> None:
    _, answers = call("On Friday for four")
    assert answers[0].text.startswith("All right. For four on Friday.")


@pytest.mark.parametrize(
    ("before", "words", "asked", "said"),
    [
        (state(Booking(), "start"), "no", "else", "else"),
        (state(Booking(), "start"), "I want to book a table", "day", "day"),
        (state(Booking("Friday"), "time"), "pardon?", "time", "I said this."),
        (state(Booking("Friday"), "time"), "Could you repeat that?", "time", "I said this."),
        (state(FULL, "confirm"), "no", "change", "change"),
        (state(FULL, "confirm"), "the name is wrong", "name", "name"),
        (state(FULL, "confirm"), "not quite", "change", "change"),
        (state(FULL, "change"), "six people", "confirm", "six"),
        (state(FULL, "confirm"), "hmm", "confirm", "yes"),
        (state(FULL, "else", booked=True), "wait, make it five people", "confirm", "five"),
        (state(FULL, "confirm"), "is there parking?", "confirm", "car park"),
        (state(Booking("Friday"), "time"), "13 people", "people", "thirteen"),
        (state(Booking("Friday"), "people"), "at 11 p.m.", "time", "eleven o'clock"),
    ],
)
def test_step(before: Reception, words: str, asked: str, said: str) -> None:
    after, answer = BRAIN.answer(before, words)
    assert after.asked == asked
    assert said in answer.text
    assert not answer.hang_up
    assert not after.booked


@pytest.mark.parametrize(
    ("before", "words", "booked"),
    [
        (state(Booking(), "start"), "goodbye", False),
        (state(Booking("Friday"), "time"), "Never mind, bye.", False),
        (state(FULL, "confirm"), "That's all, goodbye.", False),
        (state(FULL, "confirm"), "Yes, that's all, bye.", True),
        (state(Booking(), "else"), "No, thank you.", False),
        (state(FULL, "else", booked=True), "Thanks!", True),
    ],
)
def test_goodbyes_hang_up_and_book_only_with_a_yes(
    before: Reception, words: str, booked: bool
) -> None:
    after, answer = BRAIN.answer(before, words)
    assert answer.hang_up
    assert after.booked is booked
    assert ("not booked" in answer.text) == (not booked and before.booking != Booking())


def test_a_question_about_the_house_books_nothing_and_keeps_what_is_there() -> None:
    after, answers = call("Friday at seven.", "Are you open on Sunday at three? Until how late?")
    assert after.booking == Booking("Friday", "19:00")
    assert "noon until ten" in answers[1].text
    assert answers[1].text.endswith("?")


@pytest.mark.parametrize("words", ["What are your opening hours?", "Do you have vegetarian food?"])
def test_answers_about_the_house_are_long_enough_to_interrupt(words: str) -> None:
    _, answers = call(words)
    assert 90 <= len(answers[0].text) <= 300  # six seconds at fifteen characters a second


def test_asking_twice_to_repeat_repeats_the_same_thing() -> None:
    _, answers = call("Friday.", "Pardon?", "Sorry?")
    assert answers[1].text.endswith(answers[0].text)
    assert answers[2].text.endswith(answers[0].text)
    assert answers[1].text != answers[2].text


def test_the_greeting_can_be_repeated() -> None:
    _, answers = call("Sorry?")
    assert BRAIN.greeting in answers[0].text


@pytest.mark.parametrize(
    ("time", "spoken"),
    [
        ("12:00", "noon"),
        ("19:00", "seven o'clock"),
        ("19:05", "seven oh five"),
        ("19:15", "quarter past seven"),
        ("19:30", "half past seven"),
        ("20:45", "eight forty-five"),
        ("00:30", "half past twelve in the morning"),
        ("11:00", "eleven in the morning"),
    ],
)
def test_spoken_time(time: str, spoken: str) -> None:
    assert spoken_time(time) == spoken


PHRASES = st.sampled_from(
    ["Friday.", "at seven", "7 p.m.", "four people", "for 40", "It's Anna.", "yes", "no", "bye",
     "the time", "the name", "pardon?", "hours?", "vegan?", "blah", "thanks", "hello", "3 a.m.",
     "a table for two", "that's all", "tomorrow", "not Friday", "make it five", "parking?"]
)  # fmt: skip


@given(st.lists(PHRASES | st.text()))
def test_any_call(turns: list[str]) -> None:
    """Never silent, never marked up, never booked without everything and a yes."""
    now = BRAIN.begin()
    for words in turns:
        before = now
        now, answer = BRAIN.answer(before, words)
        assert answer.text.strip()
        assert answer.text[-1] in ".!?"
        assert not set(answer.text.replace(now.booking.name or "", "")) & set("*#_`<>[]{}\n")
        if now.booked:
            assert now.booking.missing() is None
            assert before.booked or before.asked == "confirm"
        if now.asked == "confirm":
            assert now.booking.missing() is None
        assert BRAIN.answer(before, words) == (now, answer), "pure"


@given(st.lists(PHRASES, max_size=6), st.lists(st.sampled_from(["blah", "@", "xyz"]), min_size=2))
def test_not_understood_is_never_the_same_sentence_twice(
    start: list[str], noise: list[str]
) -> None:
    now, _ = call(*start)
    if now.asked == "name":
        return  # there a stray word is a name
    said = ""
    for words in noise:
        now, answer = BRAIN.answer(now, words)
        assert answer.text != said
        said = answer.text
