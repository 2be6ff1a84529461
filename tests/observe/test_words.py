import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.observe.words import contradicted, errors, normalise, word_error_rate

words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("A table for 4, on Friday at 7.", "a table for four on friday at seven"),
        ("It costs 1,250 dollars", "it costs one thousand two hundred fifty dollars"),
        ("at 7 A.M.", "at seven am"),
        ("OK, the 3rd one", "okay the third one"),
        ("twenty-one", "twenty one"),
        ("the party\u2019s 'first' name", "the party's first name"),
    ],
)
def test_two_spellings_of_one_utterance_are_equal(written: str, spoken: str) -> None:
    assert normalise(written) == spoken.split()


def test_one_word_in_four() -> None:
    assert word_error_rate([("one two three four", "one too three four")]) == 0.25


@given(words, words)
def test_errors_are_a_distance(said: list[str], heard: list[str]) -> None:
    assert (errors(said, heard) == 0) == (said == heard)
    assert errors(said, heard) == errors(heard, said)
    assert abs(len(said) - len(heard)) <= errors(said, heard) <= max(len(said), len(heard))


@given(words, st.integers(0, 7))
def test_a_word_left_out_is_one_error(said: list[str], at: int) -> None:
    if at < len(said):
        assert errors(said, said[:at] + said[at + 1 :]) == 1


@pytest.mark.parametrize(
    ("committed", "final", "wrong"),
    [
        ("", "for four", 0),
        ("For four,", "for 4 people", 0),
        ("I want too", "I want two pizzas", 1),
        ("want I", "I want two", 1),
        ("hello", "", 1),
    ],
)
def test_words_that_were_to_stay_are_looked_for_in_the_final_text(committed, final, wrong):
    words, contradictions = contradicted(committed, final)
    assert (words, contradictions) == (len(committed.split()), wrong)
