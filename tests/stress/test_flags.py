"""Numbers on a command line, and how a command ends."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from stress.flags import amount, count, count_or_none, told
from threadline.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [(count, "12", 12), (count_or_none, "0", 0), (amount, "0.5", 0.5), (amount, "3", 3.0)],
)
def test_a_number_is_taken(kind: Callable[[str], float], text: str, number: float) -> None:
    assert kind(text) == number


@pytest.mark.parametrize("kind", [count, count_or_none, amount])
@pytest.mark.parametrize("text", ["", "x", "-1", "1.5.2", "inf", "nan", "²", "1e999"])
def test_what_is_none_is_refused_in_words(kind: Callable[[str], float], text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"is no (whole )?number"):
        kind(text)


@pytest.mark.parametrize("kind", [count, amount])
def test_nothing_is_no_amount(kind: Callable[[str], float]) -> None:
    with pytest.raises(ArgumentTypeError):
        kind("0")


def test_what_a_user_can_cause_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    @told
    def main(number: int) -> int:
        if number == 1:
            raise ConfigError("Take another number.")
        if number == 2:
            raise KeyboardInterrupt
        return number

    assert main(7) == 7
    assert main(1) == ConfigError.exit_code
    assert capsys.readouterr().err == "Take another number.\n"
    assert main(2) == 130
