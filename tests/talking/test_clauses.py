import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.talking.clauses import ClauseCutter, clauses_of
from threadline.talking.speakable import speakable


def cut(text: str, sizes: tuple[int, ...] = (), **limits: int) -> list[str]:
    """The clauses of a text fed in pieces of these sizes, the last one taking the rest."""
    cutter = ClauseCutter(**limits)
    clauses = []
    for size in sizes:
        clauses += cutter.feed(text[:size])
        text = text[size:]
    return [*clauses, *cutter.feed(text), *cutter.finish()]


def words(text: str) -> list[str]:
    """What is said, without the marks that cutting may move: letters and digits only."""
    return re.findall(r"\w+", text.replace("_", " "))


def test_a_reply_is_cut_where_a_person_breathes() -> None:
    assert cut("Hello, how can I help you? We have rooms; and more. Bye") == [
        "Hello,",
        "how can I help you?",
        "We have rooms; and more.",
        "Bye",
    ]


def test_a_clause_leaves_as_soon_as_its_mark_is_followed_by_space() -> None:
    cutter = ClauseCutter()
    assert cutter.feed("Sure") == []
    assert cutter.feed(".") == []
    assert cutter.feed(" ") == ["Sure."]
    assert cutter.feed("I can do that. Wh") == ["I can do that."]
    assert cutter.feed("at else?") == []
    assert cutter.finish() == ["What else?"]


@pytest.mark.parametrize(
    "text",
    [
        "It costs 3.5 or 1,200 at 7:30 today.",
        "Dr. Smith and Mrs. Jones of St. Mary see J. R. Hill, e.g. at noon.",
        "We open at 9 a.m. and close at 5 p.m. on Jan. 5 at No. 7 in the U.S. of A. now.",
        "Write to jo.doe@mail.example.com or see www.example.com/a.b?c=1,2;d:3 today.",
        "The mark .5 and v1.2.3 and U.S.A. stay whole.",
        "He has a Ph.D. in physics and an M.Sc. in something else.",
        "Open Mon.-Fri. 9 a.m.-5 p.m. and on Thurs. until late.",
        "It is approx. 3 mi. away and 40 ft. wide.",
        "Pay $1,234.56 or 20% of it vs. 3.14 times -5.5 at 12:00.",
        "Call 1-800-555-0199 or see www.example.com/a?b=1,2&c=3.4 today.",
    ],
)
def test_stops_inside_things_do_not_cut(text: str) -> None:
    cutter = ClauseCutter(first_chars=200)
    first, *_ = text.partition(", ")
    clauses = cutter.feed(text) + cutter.finish()
    assert clauses[0].rstrip(",") == first
    assert not any(clause.endswith(("Dr.", "St.", "R.", "e.g.")) for clause in clauses)
    assert " ".join(clauses) == text


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("We open at 9 a.m. Come by.", ["We open at 9 a.m.", "Come by."]),
        ("Is it? No. I am sure. No. 5 is.", ["Is it?", "No.", "I am sure.", "No. 5 is."]),
        ('He said "no." Then (yes!) she left.', ['He said "no."', "Then (yes!)", "she left."]),
        ("Wait— what? Yes - really - yes.", ["Wait,", "what?", "Yes - really - yes."]),
        ("So am I. Good.", ["So am I.", "Good."]),
        ("Really?! Yes... Great.", ["Really?!", "Yes... Great."]),
        ("Done 😀. Next!😀 Last", ["Done.", "Next!", "Last"]),
        ('She said: "Stop. Go home." He did.', ["She said:", '"Stop. Go home."', "He did."]),
        ("“Stop, now! Go.” He did. So.", ["“Stop, now! Go.”", "He did.", "So."]),
        ("He is 5'10\" tall. So", ["He is 5'10\" tall. So"]),  # a quotation, for all we can tell
        ('"Yes.\nNo."', ['"Yes.', 'No."']),
        ("Ask on Tues. We close at 5 hrs. sharp.", ["Ask on Tues.", "We close at 5 hrs. sharp."]),
    ],
)
def test_what_does_cut(text: str, clauses: list[str]) -> None:
    assert cut(text) == [speakable(clause) for clause in clauses]


def test_list_items_are_clauses_and_keep_their_numbers() -> None:
    text = (
        "We have:\n1. **Apples**\n2. Pears\n\n- plums\n- [figs](http://a.b/c?d)\n---\nThat is all"
    )
    assert cut(text) == ["We have:", "1. Apples", "2. Pears", "plums", "figs", "That is all"]


def test_an_abbreviation_waits_for_the_next_letter_only() -> None:
    cutter = ClauseCutter()
    assert cutter.feed("We open at 9 a.m. ") == []
    assert cutter.feed("C") == ["We open at 9 a.m."]


LONG = (
    "we have a very nice room with a view of the sea and a small balcony for the morning sun " * 9
)


def test_a_sentence_without_marks_is_cut_before_a_joining_word() -> None:
    first, second, *rest = cut(LONG)
    assert first == "we have a very nice room with a view of the sea"
    assert len(first) <= 60
    assert len(first) < len(second) <= 120
    assert all(len(clause) <= 200 for clause in rest)
    assert " ".join([first, second, *rest]).split() == LONG.split()


def test_a_quotation_that_does_not_fit_is_cut_at_its_own_marks() -> None:
    clauses = cut(
        'He said "one two. three four. five six seven eight nine ten." End.', first_chars=40
    )
    assert clauses == ['He said "one two. three four.', 'five six seven eight nine ten." End.']


def test_a_forced_cut_spares_numbers_and_abbreviations() -> None:
    assert cut("dial now 415 555 2671 please", first_chars=16)[0] == "dial now"
    assert cut("it is said Dr. Smith agrees", first_chars=16)[0] == "it is said"
    assert cut("1 2 3 4 5 6 7 8 9", first_chars=8, max_chars=8)[0] == "1 2 3 4"  # it must be


def test_limits_are_the_callers() -> None:
    clauses = cut(LONG, first_chars=20, max_chars=30)
    assert len(clauses[0]) <= 20
    assert max(map(len, clauses)) <= 30
    assert cut("x" * 100, max_chars=40, first_chars=40) == ["x" * 40, "x" * 40, "x" * 20]


def test_later_commas_cut_only_when_there_is_enough_to_say() -> None:
    text = "One. Yes, well, no, " + "this is a part of some length to be spoken, " * 3 + "end."
    clauses = cut(text)
    assert clauses[0] == "One."
    assert clauses[1].startswith("Yes, well, no, this is")
    assert clauses[1].endswith("spoken,")


def test_nothing_to_say_gives_nothing() -> None:
    assert cut("") == cut(" \n\n ") == cut("*** \n --- \n 😀 … !\n") == []
    assert cut("... Hello.") == ["Hello."]


def test_what_cannot_be_said_does_not_use_up_the_short_first_clause() -> None:
    assert cut("😀 " * 60 + "Hello, how are you?") == ["Hello,", "how are you?"]


def test_finish_makes_it_fresh() -> None:
    cutter = ClauseCutter()
    cutter.feed("Hello. There was " + "something " * 30)
    cutter.finish()
    assert cutter.feed("Well, yes") == ["Well,"]  # a short first clause again
    assert cutter.finish() == ["yes"]


def test_a_whole_answer() -> None:
    assert clauses_of("Sure. What else? ") == ["Sure.", "What else?"]


def test_memory_is_bounded_whatever_is_fed() -> None:
    cutter = ClauseCutter()
    for _ in range(2000):
        cutter.feed("x" * 50)
    assert sum(map(len, cutter.finish())) <= 201


PROSE = st.lists(
    st.sampled_from(
        [
            *["Hello", "I", "we", "the", "room", "and", "but", "don't", "(well)", "snake_case"],
            *["sea,", "so;", "then:", "done.", "Done!", "why?", '"Yes,"', '"no."', "maybe..."],
            *["Dr.", "St.", "e.g.", "p.m.", "etc.", "No.", "U.S.", "I.", "1."],
            *["5", "3.5", "$1,200", "7:30", "v1.2", "9\u20135", "a@b.com", "www.x.org/a.b?"],
            *[
                "wait\u2014",
                "\u2014",
                "x\u2014y",
                "-",
                "--",
                "#",
                ">",
                "\U0001f600",
                "ok\U0001f600",
            ],
            *["**bold**", "*it*", "`code`", "[here](http://x.y/z)"],
        ]
    )
    | st.sampled_from(["\n", "\n\n", "\n- ", "\n1. ", "\n## "]),
    max_size=60,
).map(" ".join)
SIZES = st.lists(st.integers(0, 12), max_size=80).map(tuple)


@given(PROSE | st.text(), SIZES, st.integers(1, 40), st.integers(1, 80))
def test_deltas_do_not_matter(text: str, sizes: tuple[int, ...], first: int, most: int) -> None:
    whole = cut(text, first_chars=first, max_chars=most)
    assert cut(text, sizes, first_chars=first, max_chars=most) == whole
    assert cut(text, (1,) * len(text), first_chars=first, max_chars=most) == whole


@given(PROSE, SIZES)
def test_every_word_is_said_once_and_in_order(text: str, sizes: tuple[int, ...]) -> None:
    clauses = cut(text, sizes)
    assert [word for clause in clauses for word in words(clause)] == words(speakable(text))
    assert all(any(map(str.isalnum, clause)) for clause in clauses)


@given(st.text(), SIZES)
def test_clauses_are_bounded_and_clean(text: str, sizes: tuple[int, ...]) -> None:
    for clause in cut(text, sizes, first_chars=20, max_chars=50):
        assert clause == clause.strip()
        assert "\n" not in clause
        assert not set("*`~|\\[]😀") & set(clause)
        assert len(clause) <= 3 * 50  # a dash may become a comma and a space, a range " to "
