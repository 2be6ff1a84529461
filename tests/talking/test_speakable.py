import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.talking.speakable import speakable, spell_out, stop_ends


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**Sure**, *it* is `fine`.", "Sure, it is fine."),
        ("# Title\n> quote\n- one\n* two\n+ three", "Title quote one two three"),
        ("see [our page](https://x.org/a_b) now", "see our page now"),
        ("https://www.example.com/a", "example.com/a"),
        ("Great 😀👍🏽 job ✅!", "Great job!"),
        ("well — yes \u2013 no - maybe", "well, yes, no, maybe"),
        ("Well? — yes", "Well? yes"),
        ("open 9\u20135 today", "open 9 to 5 today"),
        ("a well-known e-mail, -5 degrees", "a well-known e-mail, -5 degrees"),
        ("snake_case and _this_ and __that__", "snake_case and this and that"),
        ("a<br>b <b>bold</b> 3 < 5", "a b bold 3 < 5"),
        ("```python\nprint\n```", "print"),
        ("| a | b |\n|---|---|", "a b"),
        ("see ![a map](http://x.org/m.png) and [b](http://x.org/c_(d))", "see a map and b"),
        ("<https://example.com> or <mailto:jo@example.com>", "example.com or jo@example.com"),
        ("- [ ] milk\n- [x] eggs", "milk eggs"),
        (
            "Wow\u203c\ufe0f \u2139\ufe0f info \u2934 up 1\ufe0f\u20e3 \U0001f1eb\U0001f1f7",
            "Wow info up 1",
        ),
        ("20 °C costs $5 & more, 10%", "20 °C costs $5 & more, 10%"),
        ("café, naïve, 日本", "café, naïve, 日本"),
        ("...", ""),
        ("😀", ""),
        ("", ""),
    ],
)
def test_speakable(text: str, said: str) -> None:
    assert speakable(text) == said


@given(st.text(alphabet="ab1 .,!?—-*_`#>[]()\n😀|~"))
def test_cleaning_twice_changes_no_word(text: str) -> None:
    once = speakable(text)
    assert "\n" not in once
    assert [c for c in speakable(once) if c.isalnum()] == [c for c in once if c.isalnum()]


@pytest.mark.parametrize(
    ("before", "after", "ends"),
    [
        ("I came", " Then", True),
        ("Ask Dr", " Smith", False),
        ("(Mr", " X", False),
        ("at 5 p.m", " ", None),
        ("at 5 p.m", " on", False),
        ("at 5 p.m", ' "On', True),
        ("No", " 5", False),
        ("So do I", " And", True),
        ("the U.S", " Then", False),
        ("", "", True),
    ],
)
def test_stop_ends(before: str, after: str, ends: bool | None) -> None:
    assert stop_ends(before, after) is ends


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$3.50 or $1,200", "3 dollars and 50 cents or 1,200 dollars"),
        ("$1 or $2.00 or $3.5 million", "1 dollar or 2 dollars or 3.5 million dollars"),
        ("at 7:05, 7:30, 7:00 and 7:00 p.m.", "at 7 oh 5, 7 30, 7 o'clock and 7 p.m."),
        ("call 555-1234", "call 5 5 5, 1 2 3 4"),
        ("(415) 555-2671", "4 1 5, 5 5 5, 2 6 7 1"),
        ("code 40417, #12", "code 4 0 4 1 7, number 12"),
        ("3-4 days on 2024-05-06", "3 to 4 days on 2024-05-06"),
        ("12,345 and 0.12345 and $12345", "12,345 and 0.12345 and 12345 dollars"),
    ],
)
def test_spell_out(text: str, said: str) -> None:
    assert spell_out(text) == said
