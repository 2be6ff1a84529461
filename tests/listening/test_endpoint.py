"""How much silence a pause is worth, by sound and by words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.config import Endpoint
from threadline.listening.endpoint import Decision, answers, decide, unfinished

CONFIG = Endpoint(complete_ms=200, patient_ms=1_200, dictation_ms=2_000, threshold=0.6)
SURE, UNSURE = 0.9, 0.1

UNFINISHED = [
    ("I want to book a table and", "conjunction"),
    ("I want to book a table. And", "conjunction"),
    ("Yes, but.", "conjunction"),
    ("Okay, so", "conjunction"),
    ("I can't come because.", "conjunction"),
    ("I'd like to order a", "article"),
    ("Can you send it to my", "article"),
    ("I'd like to", "preposition"),
    ("A table for.", "preposition"),
    ("on the 5th of", "preposition"),
    ("Um", "filler"),
    ("It is, uh.", "filler"),
    ("my number is", "verb missing"),
    ("I think it's", "verb missing"),
    ("The problem is.", "verb missing"),
    ("There is", "verb missing"),
    ("Well, I", "verb missing"),
    ("Can you", "opening"),
    ("I want", "opening"),
    ("yes, I would like", "opening"),
    ("Well.", "opening"),
    ("Hold on a second.", "asks to wait"),
    ("Let me check", "asks to wait"),
    ("I was thinking...", "trails off"),
    ("I was thinking,", "trails off"),
    ("the twenty-", "trails off"),
]
FINISHED = [
    *("", "?", "I want a table for four.", "Who is it for?", "Where are you from?", "I think so."),
    *("Yes, it is.", "That's what it is", "Uh-huh.", "Mm-hmm", "The agent is logged on.", "Mr."),
    *("Can you help me?", "I don't know.", "I want that one", "Thank you.", "So what is it about?"),
]
ANSWERS = [
    *("Yes.", "No", "no, thank you", "Yeah, sure.", "That's all.", "Okay, that's it, thanks."),
    *("Thank you very much. Goodbye!", "No, that's everything for now.", "I don\u2019t know"),
    *("Yes, please.", "Oh, yes.", "Sure, that works.", "Yes, I am.", "No, it isn't."),
]
NO_ANSWERS = [
    "",
    "Please",
    "Yes, but",
    "No, I wanted",
    "That's all the",
    "Table for four",
    "okay so",
    "um",
]


@pytest.mark.parametrize(("text", "why"), UNFINISHED)
def test_nobody_stops_there_however_it_sounds(text: str, why: str) -> None:
    assert unfinished(text) == why
    for probability in (SURE, UNSURE, None):
        assert decide(CONFIG, probability, text) == Decision(1_200, why)


@pytest.mark.parametrize("text", FINISHED)
def test_one_might_stop_there(text: str) -> None:
    assert unfinished(text) == ""


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_complete_however_it_sounds(text: str) -> None:
    assert answers(text)
    for probability in (SURE, UNSURE, None):
        assert decide(CONFIG, probability, text) == Decision(200, "answer")


@pytest.mark.parametrize("text", NO_ANSWERS)
def test_not_every_short_text_is_an_answer(text: str) -> None:
    assert not answers(text)


@pytest.mark.parametrize("text", ["my number is 415", "S-M", "my email is john"])
def test_half_of_something_dictated_waits_longest_however_it_sounds(text: str) -> None:
    for probability in (SURE, UNSURE, None):
        assert decide(CONFIG, probability, text) == Decision(2_000, "dictating")


@pytest.mark.parametrize("text", ["my account number is 44521", "S-M-I-T-H", "B as in Bravo"])
def test_what_may_go_on_or_not_must_sound_complete(text: str) -> None:
    assert decide(CONFIG, SURE, text) == Decision(200, "complete")
    for probability in (UNSURE, None):
        assert decide(CONFIG, probability, text) == Decision(2_000, "dictating")


@pytest.mark.parametrize("text", ["my number is 415-555-1234", "Lee, L-E-E", "john@gmail.com"])
def test_a_whole_number_is_left_to_the_sound(text: str) -> None:
    assert decide(CONFIG, SURE, text) == Decision(200, "complete")
    assert decide(CONFIG, UNSURE, text) == Decision(1_200, "sounds unfinished")


@pytest.mark.parametrize("text", ["I would like a table for four.", "", None])
def test_where_words_say_nothing_the_sound_decides(text: str | None) -> None:
    assert decide(CONFIG, 0.6, text) == Decision(200, "complete"), "the threshold belongs to it"
    assert decide(CONFIG, 0.59, text) == Decision(1_200, "sounds unfinished")
    assert decide(CONFIG, None, text) == Decision(1_200, "silence"), "nobody knows"


@given(st.none() | st.floats(0, 1), st.none() | st.sampled_from([*ANSWERS, "and", "415"]))
def test_by_silence_alone_neither_sound_nor_words_count(
    probability: float | None, text: str | None
) -> None:
    config = replace(CONFIG, mode="silence")
    assert decide(config, probability, text) == Decision(200, "silence")


@pytest.mark.parametrize("piece", ["yes ", "okay ", "and so ", "well, ", "hold on ", "... "])
def test_a_long_text_takes_no_longer_than_others(piece: str) -> None:
    assert decide(CONFIG, SURE, piece * 3_000 + "x").silence_ms in (200, 1_200)


@given(st.none() | st.floats(0, 1), st.text(max_size=80))
def test_any_text_gets_one_of_the_three_silences(probability: float | None, text: str) -> None:
    decision = decide(CONFIG, probability, text)
    assert decision.silence_ms in (200, 1_200, 2_000)
    assert decision.why


@given(
    st.sampled_from([text for text, _ in UNFINISHED if text[-1].isalnum()]),
    st.sampled_from([str.lower, str.upper, str.capitalize]),
    st.sampled_from(["", ".", "!"]),
)
def test_case_and_the_final_mark_do_not_matter(text: str, case, mark: str) -> None:  # type: ignore[no-untyped-def]  # a method of str
    assert unfinished(case(text) + mark) == unfinished(text)
