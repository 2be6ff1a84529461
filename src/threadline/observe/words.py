"""Words for comparison: two spellings of one utterance, and how far what was heard is off."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

_ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "1st": "first",
    "2nd": "second",
    "3rd": "third",
    "4th": "fourth",
    "5th": "fifth",
    "6th": "sixth",
    "7th": "seventh",
    "8th": "eighth",
    "9th": "ninth",
    "10th": "tenth",
}
_SPELLINGS = {**_ORDINALS, "ok": "okay", "mr": "mister", "dr": "doctor", "vs": "versus"}


def _number(value: int) -> list[str]:
    """The number as spoken: 4,321 -> four thousand three hundred twenty one."""
    if value < 20:
        return [_ONES[value]]
    if value < 100:
        return [_TENS[value // 10 - 2], *(_number(value % 10) if value % 10 else [])]
    for size, word in ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred")):
        if value >= size:
            rest = _number(value % size) if value % size else []
            return [*_number(value // size), word, *rest]
    raise AssertionError(value)


def normalise(text: str) -> list[str]:
    """The words of a text, so that two spellings of one utterance compare equal.

    Case, punctuation and hyphens go; digits become words; "A.M." becomes "am"; "$5" is left to
    be "five", since a prompt's text never has it.
    """
    plain = text.lower().replace("\u2019", "'")
    plain = re.sub(r"\b([a-z])\.(?=[a-z]\b)", r"\1", plain)  # a.m. -> am.
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    plain = re.sub(r"[^a-z0-9' ]+", " ", plain)
    words: list[str] = []
    for word in plain.split():
        word = word.strip("'")
        if word.isdigit() and len(word) <= 9:
            words += _number(int(word))
        elif word:
            words.append(_SPELLINGS.get(word, word))
    return words


def errors(said: list[str], heard: list[str]) -> int:
    """Words substituted, left out or put in: the edit distance (Levenshtein) between the two."""
    row = list(range(len(heard) + 1))
    for i, expected in enumerate(said, 1):
        corner, row[0] = row[0], i
        for j, got in enumerate(heard, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (expected != got))
    return row[-1]


def contradicted(committed: str, final: str) -> tuple[int, int]:
    """Words of a text that was to stay as it is, and how many of them the final text has not got
    in the same order."""
    early = normalise(committed)
    match = SequenceMatcher(None, early, normalise(final), autojunk=False)
    return len(early), len(early) - sum(block.size for block in match.get_matching_blocks())


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Errors over words said, for pairs of (text said, text heard); 0.05 is one word in twenty."""
    wrong = total = 0
    for said, heard in pairs:
        expected = normalise(said)
        wrong += errors(expected, normalise(heard))
        total += len(expected)
    return wrong / total if total else 0.0
