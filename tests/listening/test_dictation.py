"""What a turn ends in: half a number, a whole one, a spelling, or none of these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.listening.dictation import Dictated, dictated

ROWS = {
    Dictated.HALF: """
My number is 415 | my number is 415-555 | You can call me at 415 555. | my cell is double five
555- | five five five | Four, one, five, five, five, five. | 415, 555 | It's 415-555.
My card number is 4242 4242 | card number 4242-4242-4242. | My social security number is 123 45
my zip code is 941 | My account number is 4
I was born on March 5th | My birthday is the 5th of March | My date of birth is 03/12 | on March
card number 4242 4242 4242 4242, expires in July
A as in | B, as in | Smith, S-M-I | My name is Jonsson, J-O-N-S | S-M | M as in Mary,-
my email is john | My email address is john dot smith | It's john.smith@gmail.
my e-mail address is john at gmail | john at gmail | my email is john underscore
""",
    Dictated.OPEN: """
My account number is 44521. | order number 123 | S-M-I-T-H | J, O, N, S | A as in apple
B for Bravo | 5551234 | It's 555-1234. | 555, 1234 | 94103. | It's 4452 | nine four one oh three
""",
    Dictated.WHOLE: """
My number is 415-555-1234. | my number is four one five five five five one two three four
415 555 1234 | 1 800 555 1234 | 4155551234 | zip code 94103
my card number is 4242 4242 4242 4242 | I was born on March 5th, 1984 | My birthday is 3/12/1984
my birthday is July fourth nineteen eighty four | Smith, S-M-I-T-H.
my email is john.smith@gmail.com | my e-mail is john at gmail dot com
""",
    Dictated.NOTHING: """
? | ... | A table for four at seven thirty. | at 7:30 | See you at 7 p.m. | the U.S. | I'd like 25
room one oh four | a table for 4 | I need a hotel for 3 nights | press 1 | March is fine
on March 5th | What's your email address? | can you e-mail me | yes | call me | I | a | Plan B
the number | I live at 123 | vitamin C | it costs 1,250 dollars | 2 | two | at ten thirty
I'd like to order 12 | call me at 5 | can you call at 415 | in nineteen eighty four | I like pizza
my address is 12 Main Street | email is fine | my email is john@gmail.com and that's all I need
the 5th of March | it's July | I paid by credit card for 12 | my phone rang at 10 30
""",
}
TABLE = [
    (text.strip(), what)
    for what, rows in ROWS.items()
    for row in rows.strip().splitlines()
    for text in row.split("|")
]


@pytest.mark.parametrize(("text", "what"), TABLE)
def test_the_table(text: str, what: Dictated) -> None:
    assert dictated(text) is what


@given(st.sampled_from([row for row in TABLE if not row[0].endswith("-")]), st.sampled_from(".!? "))
def test_case_and_the_final_mark_do_not_matter(row: tuple[str, Dictated], mark: str) -> None:
    text, what = row
    assert dictated(text.rstrip(".?! ").upper() + mark) is what


ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=14), st.data())
def test_a_telephone_number_is_whole_at_its_length_however_written(
    number: list[int], data: st.DataObject
) -> None:
    text = "my phone number is"
    for place, digit in enumerate(number):
        as_word = data.draw(st.booleans())
        gap = data.draw(st.sampled_from(["", " ", "-", ", "])) if place else " "
        if as_word:
            text += f"{gap or ' '}{ONES[digit]} "
        else:
            text += f"{gap}{digit}"
    whole = len(number) in (7, 10, 11, 12) or len(number) > 12
    assert dictated(text) is (Dictated.WHOLE if whole else Dictated.HALF)


@pytest.mark.parametrize("piece", ["a. ", "a-", "5, ", "is ", "five ", "um, ", "a@", "at . "])
def test_a_long_text_takes_no_longer_than_others(piece: str) -> None:
    """A pattern that tries every way to split such a text would not end before the time-out."""
    assert dictated(piece * 3_000 + "!? thanks") in Dictated


@given(st.text(alphabet="abit 0159.,-@/:'\u2019five oh dot as in", max_size=80))
def test_any_text_has_an_answer_and_more_words_end_the_dictation(text: str) -> None:
    assert dictated(text) in Dictated
    assert dictated(f"{text} thank you very much") is Dictated.NOTHING or "@" in text
