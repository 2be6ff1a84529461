"""The mark ledger: what was heard is what the marks and the cut prove, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.talking.heard import Fate, Ledger, heard_part, mark_name, parse_mark


@given(st.integers(0, 10**11), st.integers(1, 10**11))
def test_marks_round_trip(epoch: int, clause: int) -> None:
    assert parse_mark(mark_name(epoch, clause)) == (epoch, clause)


@pytest.mark.parametrize(
    "name",
    ["", "3", "3.", ".17", "3.17.1", "3.0", "-1.2", "03.17", "3.017", " 3.17", "3.17\n", "3,17",
     "٣.٤", "3.1e2", "3.end", "start", "1" * 40 + ".1", None, 3.17, b"3.17"],
)  # fmt: skip
def test_foreign_marks_are_none(name: object) -> None:
    assert parse_mark(name) is None


@given(st.text() | st.none() | st.integers())
def test_parse_mark_never_raises_and_never_guesses(name: object) -> None:
    mark = parse_mark(name)
    assert mark is None or mark_name(*mark) == name


@pytest.mark.parametrize(
    ("played", "duration", "part"),
    [
        (0, 1000, ""),
        (-20, 1000, ""),
        (500, 0, ""),
        (1000, 1000, "one two three four"),
        (1020, 1000, "one two three four"),
        (999, 1000, "one two three"),
        (500, 1000, "one two"),  # nine characters: "one two t"
        (390, 1000, "one two"),  # seven: exactly at the space
        (380, 1000, "one"),  # six: "one tw"
        (100, 1000, ""),
    ],
)
def test_heard_part(played: int, duration: int, part: str) -> None:
    assert heard_part("one two three four", played, duration) == part


@given(st.text(), st.integers(-100, 5000), st.integers(0, 3000))
def test_heard_part_is_a_prefix_of_whole_words(text: str, played: int, duration: int) -> None:
    part = heard_part(text, played, duration)
    assert text.startswith(part)
    assert not part or part == text or text[len(part)].isspace()


@given(st.text(), st.lists(st.integers(0, 2000), min_size=2, max_size=2))
def test_more_playing_is_never_less_heard(text: str, times: list[int]) -> None:
    less, more = sorted(times)
    assert len(heard_part(text, less, 1500)) <= len(heard_part(text, more, 1500))


def ledger(*texts: str, epoch: int = 1) -> Ledger:
    book = Ledger()
    for clause, text in enumerate(texts, 1):
        book.said(epoch, clause, text)
        book.spoken(clause, 1000)
    return book


def heard(book: Ledger, *clauses: int) -> list[str]:
    return [book.text(clause) for clause in clauses]


def test_nothing_is_heard_before_its_mark() -> None:
    book = ledger("One.", "Two.")
    assert heard(book, 1, 2) == ["", ""]
    book.heard(1, 1)
    assert heard(book, 1, 2) == ["One.", ""]
    assert (book.fate(1), book.fate(2)) == (Fate.HEARD, Fate.SAID)


def test_a_mark_proves_the_clauses_before_it() -> None:
    book = ledger("One.", "Two.", "Three.")
    book.heard(1, 2)
    assert heard(book, 1, 2, 3) == ["One.", "Two.", ""]


def test_a_mark_of_another_epoch_or_clause_proves_nothing() -> None:
    book = ledger("One.", epoch=2)
    book.heard(1, 1)
    book.heard(2, 9)
    assert heard(book, 1) == [""]


def test_cut_splits_the_reply() -> None:
    book = ledger("One.", "two three four five", "Six.")
    book.void(2)
    book.cut(1, 2, 500)
    assert heard(book, 1, 2, 3) == ["One.", "two three", ""]
    assert [book.fate(n) for n in (1, 2, 3)] == [Fate.HEARD, Fate.CUT, Fate.LOST]


def test_cut_before_a_whole_word_is_lost_and_at_the_end_is_heard() -> None:
    first, last = ledger("Marvellous."), ledger("Marvellous.")
    first.cut(1, 1, 300)
    last.cut(1, 1, 1000)
    assert first.fate(1) is Fate.LOST
    assert last.fate(1) is Fate.HEARD


def test_cut_with_nothing_playing_loses_what_is_open() -> None:
    book = ledger("One.", "Two.")
    book.heard(1, 1)
    book.cut(1, 0, 0)
    assert heard(book, 1, 2) == ["One.", ""]
    assert book.fate(2) is Fate.LOST


def test_cut_spares_what_was_said_after_it() -> None:
    book = ledger("One.")
    book.void(2)
    book.said(2, 2, "Two.")
    book.cut(1, 1, 0)
    assert book.fate(2) is Fate.SAID


def test_an_unknown_duration_counts_as_unheard() -> None:
    book = Ledger()
    book.said(1, 1, "One two three.")
    book.cut(1, 1, 5000)
    assert heard(book, 1) == [""]


def test_what_is_said_into_a_cut_epoch_is_lost() -> None:
    book = ledger("One.")
    book.cut(1, 1, 1000)
    book.said(1, 2, "Two.")
    book.heard(1, 2)
    assert heard(book, 1, 2) == ["One.", ""]


def test_a_settled_clause_stays_as_it_is() -> None:
    book = ledger("one two")
    book.cut(1, 1, 600)
    book.heard(1, 1)
    assert not book.failed(1, 1)
    assert heard(book, 1) == ["one"]


def test_a_void_clause_can_still_prove_to_be_heard() -> None:
    book = ledger("One.")
    book.void(2)
    assert book.fate(1) is Fate.VOID
    book.heard(1, 1)  # its mark was on the way when the caller began to speak
    assert heard(book, 1) == ["One."]


def test_a_failed_clause_is_never_heard() -> None:
    book = ledger("One.", "Two.")
    assert book.failed(1, 1)
    assert not book.failed(1, 1)
    book.heard(1, 2)
    assert heard(book, 1, 2) == ["", "Two."]
    assert book.fate(1) is Fate.FAILED


def test_forgotten_clauses_are_unknown() -> None:
    book = ledger("One.")
    book.heard(1, 1)
    book.forget([1, 2])
    assert heard(book, 1) == [""]
    assert book.said_text(1) == ""
