"""Keys, as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.dialog.digits import MAX_DIGITS, Digits


def pressed(digits: Digits, keys: str, now: float = 0.0) -> list[str | None]:
    return [digits.press(key, now) for key in keys]


def test_the_terminator_completes_a_number_and_is_no_part_of_it() -> None:
    digits = Digits("#", 2.5)
    assert pressed(digits, "12*3") == [None] * 4
    assert digits.press("#", 1.0) == "12*3"
    assert digits.next_due() is None
    assert pressed(digits, "4#") == [None, "4"]


def test_a_pause_completes_it_counted_from_the_last_key() -> None:
    digits = Digits("#", 2.5)
    digits.press("1", 0.0)
    digits.press("2", 2.0)
    assert digits.next_due() == 4.5
    assert digits.tick(4.4) is None
    assert digits.tick(4.5) == "12"
    assert digits.tick(9.0) is None


def test_a_key_that_comes_too_late_begins_the_next_number() -> None:
    digits = Digits("#", 2.5)
    digits.press("1", 0.0)
    assert digits.press("2", 3.0) == "1"
    assert digits.tick(5.5) == "2"


def test_the_terminator_alone_is_a_key_like_others() -> None:
    assert Digits("#", 2.5).press("#", 0.0) == "#"


def test_without_a_terminator_only_a_pause_completes() -> None:
    digits = Digits("", 2.5)
    assert pressed(digits, "1#") == [None, None]
    assert digits.tick(2.5) == "1#"


@pytest.mark.parametrize("key", ["", "12", "x", " ", "٣", "\n"])  # no telephone key
def test_what_is_no_key_is_ignored(key: str) -> None:
    digits = Digits("#", 2.5)
    assert digits.press(key, 0.0) is None
    assert digits.next_due() is None


def test_letters_of_the_fourth_row_in_either_case() -> None:
    digits = Digits("d", 2.5)
    assert pressed(digits, "aBD") == [None, None, "AB"]


@given(st.text("0123456789*#", max_size=100))
def test_no_key_is_lost_and_no_number_is_too_long(keys: str) -> None:
    digits = Digits("#", 1.0)
    numbers = [number for number in pressed(digits, keys) if number is not None]
    rest = digits.tick(1.0)
    assert all(1 <= len(number) <= MAX_DIGITS for number in numbers)
    assert len(rest or "") < MAX_DIGITS
    assert "".join([*numbers, rest or ""]).replace("#", "") == keys.replace("#", "")
