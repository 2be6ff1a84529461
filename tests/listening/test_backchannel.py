"""Which words over a talking agent are an interruption."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.listening.backchannel import EARLY, Barge, classify

BACKCHANNELS = [
    *(
        "Uh-huh.",
        "uh huh",
        "Mm-hmm.",
        "mhm",
        "Mhmm",
        "Mm.",
        "Hmm.",
        "M-hm.",
        "Aha.",
        "Uh.",
        "Um...",
    ),
    *("Yeah.", "Yeah, yeah.", "yep", "Yes.", "Okay.", "OK", "ok, ok", "O-okay right"[2:], "Right."),
    *("All right.", "Alright.", "I see.", "Oh, I see.", "Got it.", "Gotcha", "Sure.", "Of course."),
    *(
        "No problem.",
        "No worries.",
        "Yeah, no problem.",
        "That's right.",
        "That\u2019s fine.",
    ),
    *("Sounds good.", "Makes sense.", "Oh, okay, great.", "Thank you.", "Thanks.", "Go on."),
    *("Mm-hmm, okay, right.", "Don't stop.", "Keep going", "I understand."),
]
STOPS = [
    *(
        "Stop.",
        "stop it",
        "Wait.",
        "Wait, wait, wait.",
        "Wait a minute",
        "Hold on.",
        "Hang on a sec.",
    ),
    *("No.", "No, no, no.", "nope", "Nah.", "Oh, no, that's wrong", "Yeah, no.", "Um, no."),
    *("Excuse me.", "Okay, stop.", "Please stop", "Can you stop", "One second.", "Just a moment."),
    *(
        "Never mind.",
        "Be quiet",
        "okay okay hold on",
        "Yes, but wait",
        "Shut up!",
        "No, no problem",
    ),
]
WORDS = [
    *("Yeah, but", "Yeah but I", "Actually", "I wanted to ask", "What?", "Sorry?", "Hello?"),
    *("Okay, so what about Friday", "Tuesday", "For four people.", "There is no hurry"),
    *("I can't wait", "Right, and the price?", "Thank you, bye.", "I have no problem with that"),
    *("I see a problem", "so when I called you yesterday I had to wait"),
]
NOTHINGS = [
    *("", "  ", "...", "?!", "[BLANK_AUDIO]", "(coughs)", "[ Silence ]", "*sighs*", "♪ ♪"),
    *("you", "You.", "Thank you for watching.", "Thanks for watching!"),
]
TABLE = [
    *((text, Barge.BACKCHANNEL) for text in BACKCHANNELS),
    *((text, Barge.STOP) for text in STOPS),
    *((text, Barge.WORDS) for text in WORDS),
    *((text, Barge.NOTHING) for text in NOTHINGS),
]


@pytest.mark.parametrize(("text", "kind"), TABLE)
def test_the_table(text: str, kind: Barge) -> None:
    assert classify(text) is kind


@given(
    st.sampled_from([row for row in TABLE if not set(row[0]) & set("[(*♪")]),
    st.lists(st.sampled_from([*" .,!?;:-\n", " \u2014 ", "..."]), max_size=12),
    st.sampled_from([str.lower, str.upper, str.title, str.capitalize]),
)
def test_case_and_punctuation_do_not_matter(row: tuple[str, Barge], marks: list[str], case) -> None:  # type: ignore[no-untyped-def]  # a method of str
    text, kind = row
    words = text.replace("-", " ").strip(string.punctuation + " ").split()
    marks = (marks + [" "] * len(words))[: len(words)]
    changed = " ".join(
        case(word).replace("'S", "'s") + mark for word, mark in zip(words, marks, strict=True)
    )
    assert classify(changed) is kind


@given(st.sampled_from(STOPS), st.sampled_from(["[cough]", "(door)", "*sighs*", ""]))
def test_noises_beside_the_words_change_nothing(text: str, noise: str) -> None:
    assert classify(f"{noise} {text} {noise}") is Barge.STOP


@given(st.sampled_from(BACKCHANNELS), st.sampled_from(BACKCHANNELS))
def test_two_backchannels_are_one(one: str, other: str) -> None:
    assert classify(f"{one} {other}") is Barge.BACKCHANNEL


@given(st.sampled_from(BACKCHANNELS), st.sampled_from(["stop", "wait", "no", "hold on"]))
def test_stop_wins_over_what_is_said_before(before: str, stop: str) -> None:
    if len(before.replace("-", " ").split()) < EARLY:
        assert classify(f"{before} {stop}") is Barge.STOP


def test_a_stop_word_deep_in_a_sentence_is_part_of_it() -> None:
    lead = "and then it went on and"
    assert len(lead.split()) == EARLY
    assert classify(f"{lead} stop") is Barge.WORDS
    assert classify(f"{lead.removeprefix('and ')} stop") is Barge.STOP


@given(st.text(max_size=60))
def test_any_text_has_a_kind(text: str) -> None:
    kind = classify(text)
    assert kind in Barge
    if not any(sign.isalnum() for sign in text):
        assert kind is Barge.NOTHING
