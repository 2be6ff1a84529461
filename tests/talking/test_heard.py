"""The mark ledger: what was heard is what the marks and the cut prove, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

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


WORDS = (("one", 200), ("two", 450), ("three", 800), ("four", 950))


@pytest.mark.parametrize(
    ("text", "words", "played", "duration", "part"),
    [
        ("one two three four", WORDS, 449, 1000, "one"),
        ("one two three four", WORDS, 450, 1000, "one two"),
        ("one two three four", WORDS, 799, 1000, "one two"),
        ("one two three four", WORDS, 950, 1000, "one two three four"),  # what follows is silence
        ("one two three four", WORDS, 0, 1000, ""),
        ("one two three four", WORDS, 450, 0, "one two"),  # the rest is still being made
        ("one two three four", WORDS[:2], 900, 0, "one two"),
        ("one two three four", WORDS[:2], 900, 1000, "one two"),
        ("one two three four", WORDS[:2], 1000, 1000, "one two three four"),
        ("One, two; three. Four!", WORDS, 450, 1000, "One, two;"),
        ('"One" (two) three four', WORDS, 450, 1000, '"One" (two)'),
        ("One-two three four.", WORDS, 200, 1000, ""),
        ("One-two three four.", WORDS, 450, 1000, "One-two"),
        ("onetwo threefour", WORDS, 800, 1000, "onetwo"),
        ("Straße two", (("STRASSE", 100), ("two", 200)), 100, 300, "Straße"),
        # The voice says other letters than we wrote.
        ("It costs $5 today", (("it", 100), ("costs", 300), ("five", 500), ("dollars", 800),
         ("today", 1000)), 300, 1100, "It costs"),
        ("It costs $5 today", (("it", 100), ("costs", 300), ("five", 500), ("dollars", 800),
         ("today", 1000)), 500, 1100, "It costs"),
        ("It costs $5 today", (("it", 100), ("costs", 300), ("five", 500), ("dollars", 800),
         ("today", 1000)), 800, 1100, "It costs $5"),
        ("It costs $5 today", (("it", 100), ("costs", 300), ("five", 500)), 900, 0, "It costs"),
        ("It costs $5 today", (("it", 100), ("costs", 300), ("five", 500), ("dollars", 800),
         ("today", 1000)), 1000, 1100, "It costs $5 today"),
        ("one two", (("", 100), ("!", 200)), 150, 300, ""),
    ],
)  # fmt: skip
def test_heard_part_by_the_times_of_the_words(
    text: str, words: tuple[tuple[str, int], ...], played: int, duration: int, part: str
) -> None:
    assert heard_part(text, played, duration, words) == part


TIMED = st.lists(st.tuples(st.text(max_size=6), st.integers(0, 3000)), max_size=6)


@given(st.text(), st.integers(-100, 5000), st.integers(0, 3000), TIMED)
def test_heard_part_is_a_prefix_of_whole_words_whatever_the_voice_tells(
    text: str, played: int, duration: int, words: list[tuple[str, int]]
) -> None:
    part = heard_part(text, played, duration, words)
    assert text.startswith(part)
    assert not part or part == text or text[len(part)].isspace()


@given(st.text(), st.lists(st.integers(0, 2000), min_size=2, max_size=2), TIMED)
def test_more_playing_is_never_less_heard_whatever_the_voice_tells(
    text: str, times: list[int], words: list[tuple[str, int]]
) -> None:
    less, more = sorted(times)
    assert len(heard_part(text, less, 1500, words)) <= len(heard_part(text, more, 1500, words))


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


def test_a_dropped_clause_and_what_was_said_after_it_is_never_heard() -> None:
    book = ledger("One.", "Two.", "Three.")
    book.drop(1, 2)
    book.said(1, 4, "Four.")
    book.heard(1, 2)
    book.heard(1, 4)
    assert heard(book, 1, 2, 3, 4) == ["One.", "", "", "Four."]
    assert [book.fate(n) for n in (2, 3)] == [Fate.DROPPED] * 2


def test_dropping_spares_other_epochs_and_what_is_settled() -> None:
    book = ledger("One.", "Two.")
    book.heard(1, 2)
    book.drop(1, 1)
    book.drop(2, 1)
    assert heard(book, 1, 2) == ["One.", "Two."]


def test_expected_is_what_was_heard_or_is_on_its_way() -> None:
    book = ledger("one two", "three")
    book.heard(1, 1)
    assert [book.expected(n) for n in (1, 2, 9)] == ["one two", "three", ""]
    book.void(2)
    assert book.expected(2) == ""


def test_the_latest_news_of_a_clause_counts_and_words_are_not_unlearned() -> None:
    book = ledger("one two three four")
    book.spoken(1, 0, WORDS[:1])
    book.spoken(1, 0, WORDS)
    book.spoken(1, 1000)
    book.cut(1, 1, 449)
    assert heard(book, 1) == ["one"]


# --- a carrier that is exact ----------------------------------------------------------------

FRAME = 20


@dataclass
class Spoken:
    """A clause as a voice speaks it."""

    text: str
    words: tuple[tuple[str, int], ...]
    duration: int  # whole frames


def spoken_clause(random: Random) -> Spoken:
    """A clause whose words, as the voice tells them, are spelled and split a little otherwise."""
    tokens, words, at = [], [], random.randrange(200)
    for _ in range(random.randint(1, 7)):
        parts = random.choices(["a", "well", "known", "7", "Day"], k=random.choice([1, 1, 2]))
        tokens.append("-".join(parts) + random.choice(["", "", ",", ".", "!?", '"']))
        for part in parts:
            at += random.randint(1, 400)
            words.append((random.choice([part, part.upper(), f"{part},"]), at))
    duration = -(-(at + random.randrange(150)) // FRAME) * FRAME
    return Spoken(" ".join(tokens), tuple(words), duration)


def truly_heard(clause: Spoken, sent: int) -> str:
    """The tokens of the text whose last part has ended: the long way round."""
    ends = iter(clause.words)
    heard = []
    for token in clause.text.split():
        end = [next(ends)[1] for _ in token.split("-")][-1]
        if end <= sent:
            heard.append(token)
    return " ".join(heard)


def interrupted(random: Random) -> tuple[list[str], list[str]]:
    """What the ledger says was heard of one reply, by clause, and what truly was.

    The voice makes audio some time ahead of the wire; a mark comes back some time after its
    clause, unless the clear comes first and flushes it.
    """
    clauses = [spoken_clause(random) for _ in range(random.randint(1, 5))]
    total = sum(clause.duration for clause in clauses)
    delay, ahead = random.randrange(400), random.randint(20, 2000)
    cut_at = random.randint(0, total + 200)
    sent = min(cut_at // FRAME * FRAME, total)
    book = Ledger()
    truth = []
    begins = on_wire = played = 0
    for number, clause in enumerate(clauses, 1):
        book.said(1, number, clause.text)
        made = cut_at + ahead - begins
        whole = made >= clause.duration
        known = tuple(word for word in clause.words if whole or word[1] <= made)
        book.spoken(number, clause.duration if whole else 0, known)
        if sent > begins:
            on_wire, played = number, min(sent - begins, clause.duration)
        truth.append(truly_heard(clause, sent - begins))
        begins += clause.duration
        if begins + delay <= cut_at:
            book.heard(1, number)
    if random.random() < 0.5:
        book.void(2)
    book.said(2, 99, "What was said next.")
    book.cut(1, on_wire, played)
    book.heard(1, len(clauses))  # a mark that the clear has flushed is no proof
    assert book.fate(99) is Fate.SAID
    return heard(book, *range(1, len(clauses) + 1)), truth


def test_a_thousand_interruptions_leave_exactly_the_words_that_were_played() -> None:
    outcomes = [interrupted(Random(seed)) for seed in range(1000)]
    wrong = [seed for seed, (told, truth) in enumerate(outcomes) if told != truth]
    assert wrong == []
    assert sum("" in truth and any(truth) for _, truth in outcomes) > 300  # most were cut
