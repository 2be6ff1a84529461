"""LocalAgreement-2: what is committed stays, and what two answers agree on is committed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.listening.agreement import LONGEST, MOST, Agreement, Word


def said(text: str, start: float = 0.0, each: float = 0.3) -> list[Word]:
    """Words of equal length, one after the other."""
    return [
        Word(word, start + n * each, start + (n + 1) * each) for n, word in enumerate(text.split())
    ]


def texts(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def test_a_word_is_committed_when_two_answers_running_agree() -> None:
    agreement = Agreement()
    assert agreement.feed(said("I would like a cable")) == []
    assert (agreement.committed, agreement.hypothesis) == ("", "I would like a cable")
    assert texts(agreement.feed(said("I would like a table for"))) == "I would like a"
    assert agreement.hypothesis == "I would like a table for"
    assert texts(agreement.feed(said("I would like a table for four"))) == "table for"
    assert agreement.committed == "I would like a table for"
    assert agreement.hypothesis == "I would like a table for four"


def test_a_word_said_once_and_not_again_is_never_committed() -> None:
    agreement = Agreement()
    for answer in ("one two", "one too", "one two", "one too"):
        agreement.feed(said(answer))
    assert agreement.committed == "one"


def test_case_and_punctuation_are_no_disagreement_and_the_newer_spelling_stays() -> None:
    agreement = Agreement()
    agreement.feed(said("hello. my name"))
    assert texts(agreement.feed(said("Hello, my name is"))) == "Hello, my name"


def test_a_changed_opinion_on_committed_words_changes_nothing() -> None:
    agreement = Agreement()
    agreement.feed(said("a table for two"))
    agreement.feed(said("a table for two"))
    agreement.feed(said("the cable or two please"))
    assert agreement.committed == "a table for two"
    assert agreement.hypothesis == "a table for two please"


@pytest.mark.parametrize("drift", [-0.25, -0.1, 0.0, 0.1, 0.4])
def test_words_heard_again_with_other_times_are_not_committed_twice(drift: float) -> None:
    agreement = Agreement()
    agreement.feed(said("we are four people"))
    agreement.feed(said("we are four people"))
    for _ in range(2):
        agreement.feed(said("we are four people tonight", start=drift))
    assert agreement.committed == "we are four people tonight"


def test_a_word_that_was_really_said_again_is_kept() -> None:
    agreement = Agreement()
    agreement.feed(said("no no"))
    agreement.feed(said("no no no"))
    assert agreement.committed == "no no"
    agreement.feed(said("no no no thanks"))
    assert agreement.committed == "no no no"


def test_an_answer_may_begin_in_the_middle() -> None:
    agreement = Agreement()
    agreement.feed(said("one two three four"))
    agreement.feed(said("one two three four five"))
    assert texts(agreement.feed(said("four five six", start=0.9))) == "five"
    assert texts(agreement.feed(said("four five six", start=0.9))) == "six"
    assert agreement.committed == "one two three four five six"


def test_a_recogniser_s_loop_is_passed_over() -> None:
    agreement = Agreement()
    agreement.feed(said("well then"))
    assert agreement.feed(said("well then " * MOST)) == ()
    assert agreement.hypothesis == "well then"


def test_reset_begins_anew() -> None:
    agreement = Agreement()
    for _ in range(2):
        agreement.feed(said("the first caller"))
    agreement.reset()
    assert agreement.hypothesis == ""
    assert agreement.feed(said("the first caller")) == [], "no agreement with the one before"


def test_nothing_is_cut_before_it_is_long_or_when_nothing_is_committed() -> None:
    agreement = Agreement()
    assert agreement.trim(0.0, LONGEST + 5) == 0.0
    for _ in range(2):
        agreement.feed(said("One two. Three four. Five"))
    assert agreement.trim(0.0, LONGEST) == 0.0


def test_the_cut_is_the_last_end_of_a_sentence_before_the_last_committed_word() -> None:
    agreement = Agreement()
    for _ in range(2):
        agreement.feed(said("One two. Three four. Five"))
    assert agreement.trim(0.0, LONGEST + 1) == pytest.approx(1.2)
    assert agreement.trim(1.3, LONGEST + 2) == pytest.approx(1.3), "nothing committed since then"
    agreement.reset()
    for _ in range(2):
        agreement.feed(said("one two three four."))
    assert agreement.trim(0.0, LONGEST + 1) == pytest.approx(0.9), "no sentence: a word"


vocabulary = st.sampled_from(("no", "yes", "a", "the", "four", "five", "table", "Table,", "four."))
answers = st.lists(
    st.lists(
        st.tuples(vocabulary, st.floats(0, 20), st.floats(0, 0.5)).map(
            lambda one: Word(one[0], one[1], one[1] + one[2])
        ),
        max_size=8,
    ).map(lambda words: sorted(words, key=lambda word: word.start)),
    max_size=12,
)


@given(answers)
def test_committed_text_never_retracts(feeds: list[list[Word]]) -> None:
    agreement = Agreement()
    for words in feeds:
        before = agreement.committed
        new = agreement.feed(words)
        assert agreement.committed == " ".join(filter(None, [before, texts(new)]))
        assert agreement.hypothesis.startswith(agreement.committed)
        assert set(new) <= set(words), "only what this answer says is committed"


@given(
    st.lists(vocabulary, min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=10),
    st.lists(st.floats(-0.04, 0.04), min_size=20, max_size=20),
)
def test_true_words_with_wrong_tails_and_shaky_times_come_out_true(
    truth: list[str], steps: list[tuple[int, int]], shakes: list[float]
) -> None:
    """Each answer is right but for its last words, of which no two answers say the same."""
    agreement = Agreement()
    heard = 0
    for number, (more, wrong) in enumerate(steps):
        heard = min(heard + more, len(truth))
        shake = shakes[number]
        words = said(" ".join(truth[:heard]), start=shake)
        tail = said(" ".join(f"wrong{number}x{n}" for n in range(wrong)), start=shake + heard * 0.3)
        agreement.feed([*words, *tail])
        plain = [word.strip(".,").lower() for word in truth]
        committed = [word.strip(".,").lower() for word in agreement.committed.split()]
        assert committed == plain[: len(committed)]
    for _ in range(2):
        agreement.feed(said(" ".join(truth)))
    assert len(agreement.committed.split()) == len(truth)
