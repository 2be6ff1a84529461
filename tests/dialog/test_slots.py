"""What Whisper writes, and what a caller means by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.dialog.slots import Mentions, clock, mentions, number, ordinal, spoken_number


def at(hour: int, minute: int = 0) -> int:
    return hour * 60 + minute


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("A table for four on Friday at seven.", Mentions("Friday", at(19), 4)),
        ("Friday at 7, for 4.", Mentions("Friday", at(19), 4)),
        ("book for 7 at 8", Mentions(minutes=at(20), people=7)),
        ("a table for seven thirty", Mentions(minutes=at(19, 30))),
        ("a table for 2 for 7.30 tonight", Mentions("tonight", at(19, 30), 2)),
        ("four people at 7 p.m. on friday", Mentions("Friday", at(19), 4)),
        (
            "I'd like to come on Saturday evening, around eight, we're three.",
            Mentions("Saturday", at(20), 3),
        ),
        (
            "five people at half past eight on Sunday under the name of Brown",
            Mentions("Sunday", at(20, 30), 5, "Brown"),
        ),
        ("7 p.m.", Mentions(minutes=at(19))),
        ("7pm", Mentions(minutes=at(19))),
        ("7 PM", Mentions(minutes=at(19))),
        ("7:30 p.m.", Mentions(minutes=at(19, 30))),
        ("19:30", Mentions(minutes=at(19, 30))),
        ("7 o'clock", Mentions(minutes=at(19))),
        ("half past seven", Mentions(minutes=at(19, 30))),
        ("quarter past seven", Mentions(minutes=at(19, 15))),
        ("quarter to eight", Mentions(minutes=at(19, 45))),
        ("ten past seven", Mentions(minutes=at(19, 10))),
        ("at noon", Mentions(minutes=at(12))),
        ("11 in the morning", Mentions(minutes=at(11))),
        ("eleven a.m.", Mentions(minutes=at(11))),
        ("2 in the afternoon", Mentions(minutes=at(14))),
        ("Tomorrow.", Mentions("tomorrow")),
        ("the day after tomorrow", Mentions("the day after tomorrow")),
        ("Day after tomorrow.", Mentions("the day after tomorrow")),
        ("next Friday", Mentions("next Friday")),
        ("the 5th", Mentions("the 5th")),
        ("the twenty-first", Mentions("the 21st")),
        ("July 5th please", Mentions("July 5th")),
        ("the fifth of July", Mentions("July 5th")),
        ("June 3", Mentions("June 3rd")),
        ("May the 5th", Mentions("May 5th")),
        ("Friday the 5th", Mentions("the 5th")),
        ("the 45th", Mentions()),
        ("for two", Mentions(people=2)),
        ("party of six", Mentions(people=6)),
        ("there will be six of us", Mentions(people=6)),
        ("Two adults and two kids.", Mentions(people=4)),
        ("me and two friends", Mentions(people=3)),
        ("just me", Mentions(people=1)),
        ("It's for four people on Friday", Mentions("Friday", people=4)),
        ("My name is Anna.", Mentions(name="Anna")),
        ("my name is anna", Mentions(name="Anna")),
        ("It's Anna.", Mentions(name="Anna")),
        ("I'm Anna Smith.", Mentions(name="Anna Smith")),
        ("This is John Miller, a table for Monday", Mentions("Monday", name="John Miller")),
        ("The name\u2019s O\u2019Brien.", Mentions(name="O'Brien")),
        ("I'm looking for a table", Mentions()),
        ("Yes, please.", Mentions()),
        ("No, five people.", Mentions(people=5)),
        ("No, five.", Mentions(people=5)),
        ("Not four, five people", Mentions(people=5)),
        ("Friday, no, Saturday", Mentions("Saturday")),
        ("not Friday, Saturday", Mentions("Saturday")),
        ("half past seven, no, at eight", Mentions(minutes=at(20))),
        ("actually make it eight o'clock", Mentions(minutes=at(20))),
        ("", Mentions()),
    ],
)
def test_mentions(text: str, meaning: Mentions) -> None:
    assert mentions(text) == meaning


@pytest.mark.parametrize(
    ("asked", "text", "meaning"),
    [
        ("people", "Seven.", Mentions(people=7)),
        ("time", "Seven.", Mentions(minutes=at(19))),
        ("day", "Seven.", Mentions("the 7th")),
        ("name", "Seven.", Mentions()),
        ("time", "Let's say 8.", Mentions(minutes=at(20))),
        ("people", "twenty", Mentions(people=20)),
        ("name", "Anna.", Mentions(name="Anna")),
        ("name", "anna smith", Mentions(name="Anna Smith")),
        ("name", "it's anna", Mentions(name="Anna")),
        ("name", "It's Anna, A-N-N-A.", Mentions(name="Anna")),
        ("name", "José.", Mentions(name="José")),
        ("name", "Sorry, what?", Mentions()),
        ("name", "Friday.", Mentions("Friday")),
        ("name", "Never mind.", Mentions()),
        ("day", "Anna.", Mentions()),
    ],
)
def test_a_bare_word_answers_the_question(asked: str, text: str, meaning: Mentions) -> None:
    assert mentions(text, asked) == meaning


@given(st.text(), st.sampled_from(["", "day", "time", "people", "name", "confirm"]))
def test_any_text_is_read(text: str, asked: str) -> None:
    found = mentions(text, asked)
    assert found.minutes is None or 0 <= found.minutes < 24 * 60
    assert found.name is None or found.name.strip()
    assert found.day is None or found.day.strip()


@given(st.integers(0, 99))
def test_numbers_round_trip(n: int) -> None:
    assert number(spoken_number(n)) == n
    assert number(str(n)) == n


@pytest.mark.parametrize("text", ["", "abc", "123", "²", "twenty twenty", "-1", "twenty eleven"])
def test_not_a_number(text: str) -> None:
    assert number(text) is None


def test_ordinals() -> None:
    wanted = ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th"]
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30)] == wanted


@pytest.mark.parametrize(
    ("hour", "minute", "half", "wanted"),
    [
        (7, 30, "", at(19, 30)),
        (7, 0, "am", at(7)),
        (12, 0, "am", at(0)),
        (12, 0, "pm", at(12)),
        (12, 0, "", at(12)),
        (13, 0, "am", None),
        (24, 0, "", None),
        (7, 60, "", None),
    ],
)
def test_clock(hour: int, minute: int, half: str, wanted: int | None) -> None:
    assert clock(hour, minute, half) == wanted
