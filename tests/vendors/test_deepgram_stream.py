"""Every word goes to the utterance in whose audio it was spoken, and to no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.vendors.deepgram import Results, Word
from threadline.vendors.deepgram_stream import MAX_ASKS, QUIET_SECONDS, Said, Stream, part

SECOND = 8000  # bytes


def result(
    start: float,
    end: float,
    text: str,
    final: bool = True,
    flushed: bool = False,
    words: tuple[Word, ...] = (),
) -> Results:
    return Results(start, end, text, final, flushed, words)


def texts(said: list[Said]) -> list[tuple[int, int, str, bool]]:
    return [(s.utterance, s.windows, s.text, s.final) for s in said]


def spoken(stream: Stream, utterance: int, seconds: float, now: float = 0.0) -> None:
    stream.flush()
    stream.begin(utterance, now)
    stream.add(round(seconds * SECOND))


def test_finals_are_joined_and_the_newest_guess_follows_them() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 3.0)
    read = stream.read
    assert texts(read(result(0, 0.5, "a", final=False), 0.4)) == [(1, 0, "a", False)]
    assert texts(read(result(0, 1.0, "a table", final=False), 0.8)) == [(1, 0, "a table", False)]
    assert texts(read(result(0, 1.0, "A table", final=True), 0.9)) == [(1, 0, "A table", False)]
    told = texts(read(result(1.0, 2.0, "for", final=False), 1.0))
    assert told == [(1, 0, "A table for", False)]
    (further,) = read(result(1.0, 2.2, "for", final=False), 1.1)
    assert (further.text, further.covered) == ("A table for", 2.2)  # more was heard, and no word
    assert read(result(1.0, 2.2, "for", final=False), 1.1) == []  # nothing new
    assert texts(read(result(1.0, 2.5, "for two", True), 1.2)) == [(1, 0, "A table for two", False)]


def test_a_result_that_comes_twice_is_taken_once() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 3.0)
    for _ in range(2):
        stream.read(result(0, 1.0, "one", True), 0.0)
    words = (Word("one", 0.2, 0.8), Word("two", 1.2, 1.8))
    stream.read(result(0, 2.0, "one two", True, False, words), 0.0)  # and once more, with another
    assert texts(stream.read(result(2.0, 3.0, "three"), 0.0)) == [(1, 0, "one two three", False)]


def test_an_ask_is_answered_by_the_servers_word() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0, now=10.0)
    assert stream.flush()
    assert stream.ask(1, 60, 12.0) == []
    assert stream.deadline(12.0) == pytest.approx(12.0 + QUIET_SECONDS)
    [said] = stream.read(result(0, 1.9, "yes", flushed=True), 12.25)
    assert (said.text, said.windows, said.final, said.late) == ("yes", 60, True, False)
    assert said.seconds == pytest.approx(0.25)
    assert said.first == pytest.approx(2.25)
    assert stream.deadline(12.25) is None
    assert stream.unanswered == []


def test_an_ask_is_answered_when_final_results_reach_it() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.ask(1, 60, 2.0)
    assert texts(stream.read(result(0, 1.5, "one"), 2.1)) == [(1, 0, "one", False)]
    assert texts(stream.read(result(1.5, 1.99, "two"), 2.2)) == [(1, 60, "one two", True)]


def test_an_ask_is_answered_at_once_when_all_is_known() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.read(result(0, 2.0, "known"), 2.1)
    asked = stream.ask(1, 60, 2.2)
    assert asked is not None
    assert texts(asked) == [(1, 60, "known", True)]


def test_an_utterance_goes_on_after_an_answer() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 1.0)
    stream.flush()
    stream.ask(1, 31, 1.0)
    assert texts(stream.read(result(0, 1.0, "five", flushed=True), 1.1)) == [(1, 31, "five", True)]
    assert stream.unanswered == []
    stream.add(SECOND)
    assert stream.unanswered == [1]
    stream.flush()
    stream.ask(1, 62, 2.0)
    said = stream.read(result(1.0, 2.0, "five six", flushed=True), 2.1)
    assert texts(said) == [(1, 62, "five five six", True)]


def test_without_a_word_from_the_server_the_clock_answers_what_is_known() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.read(result(0, 1.0, "a table", True), 1.0)
    stream.read(result(1.0, 1.85, "for", False), 1.9)
    stream.ask(1, 60, 2.0)
    assert stream.expire(2.0 + QUIET_SECONDS - 0.01) == []
    [said] = stream.expire(2.0 + QUIET_SECONDS)
    assert (said.text, said.final, said.late) == ("a table for", True, True)
    assert not stream.overdue(9.0)
    # What comes late corrects nothing that was already acted upon.
    assert stream.read(result(1.0, 2.0, "four", True, True), 2.5) == []


def test_a_server_that_has_not_accounted_for_the_audio_is_overdue() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.read(result(0, 1.0, "a table", False), 1.0)
    stream.ask(1, 60, 2.0)
    assert stream.expire(2.9) == []
    assert not stream.overdue(2.9)
    assert stream.deadline(2.9) == pytest.approx(3.0)
    assert stream.expire(3.0) == []
    assert stream.overdue(3.0)
    assert stream.unanswered == [1]


def test_a_last_word_without_a_result_is_waited_for() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.read(result(0, 1.7, "a table for", False), 1.8)
    stream.ask(1, 60, 2.0)
    assert stream.expire(2.5) == []
    said = stream.read(result(0, 2.0, "a table for two", True, True), 2.6)
    assert texts(said) == [(1, 60, "a table for two", True)]


def test_a_late_guess_that_accounts_for_the_audio_is_enough_after_the_quiet_time() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.ask(1, 60, 2.0)
    assert stream.expire(2.4) == []
    assert texts(stream.read(result(0, 1.9, "late", False), 2.5)) == [(1, 60, "late", True)]


def test_late_results_of_a_forgotten_utterance_do_not_reach_the_next() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.forget(1)
    spoken(stream, 2, 1.0)
    assert stream.read(result(0, 1.5, "old", False), 2.0) == []
    assert stream.read(result(0, 2.0, "old words", True, True), 2.1) == []
    stream.flush()
    stream.ask(2, 31, 3.0)
    said = stream.read(result(2.0, 3.0, "new", True, True), 3.1)
    assert texts(said) == [(2, 31, "new", True)]


def test_a_result_across_two_utterances_is_parted_by_its_words() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.ask(1, 60, 2.0)
    spoken(stream, 2, 2.0)
    words = (Word("one", 0.2, 0.9), Word("uno", 1.2, 1.9), Word("two", 2.1, 2.6))
    said = stream.read(result(0, 3.0, "one uno two", True, False, words), 2.5)
    assert texts(said) == [(1, 60, "one uno", True), (2, 0, "two", False)]


def test_the_end_of_an_utterance_is_answered_after_the_next_has_begun() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.flush()
    stream.ask(1, 62, 2.0)
    spoken(stream, 2, 1.0)
    assert stream.unanswered == [1, 2]
    assert texts(stream.read(result(0, 2.0, "one", True, True), 2.1)) == [(1, 62, "one", True)]
    assert stream.unanswered == [2]


def test_an_answer_said_twice_is_no_answer_to_the_next_question() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.flush()
    stream.ask(1, 62, 2.0)
    assert len(stream.read(result(0, 2.0, "one", True, True), 2.1)) == 1
    spoken(stream, 2, 2.0)
    stream.flush()
    stream.ask(2, 62, 4.0)
    assert stream.read(result(0, 2.0, "one", True, True), 4.1) == []
    assert texts(stream.read(result(2, 4, "two", True, True), 4.2)) == [(2, 62, "two", True)]


def test_a_late_answer_to_an_older_question_is_not_taken_for_the_newer() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 2.0)
    stream.read(result(0, 1.9, "on", False), 1.9)
    stream.flush()
    stream.ask(1, 62, 2.0)
    assert len(stream.expire(2.4)) == 1
    stream.add(2 * SECOND)
    stream.flush()
    stream.ask(1, 124, 4.0)
    told = stream.read(result(0, 2.0, "one", True, True), 4.1)
    assert [said.final for said in told] == [False]
    said = stream.read(result(2.0, 4.0, "two", True, True), 4.2)
    assert texts(said) == [(1, 124, "one two", True)]


def test_a_question_that_found_nothing_is_answered_with_the_next() -> None:
    """The server says nothing about a Finalize with nothing new before it."""
    stream = Stream(1.0)
    spoken(stream, 1, 1.0)
    stream.flush()
    stream.read(result(0, 0.9, "one", True), 1.0)
    stream.ask(1, 31, 1.0)
    assert len(stream.expire(1.5)) == 1
    stream.add(2 * SECOND)
    stream.flush()
    stream.ask(1, 93, 3.0)
    said = stream.read(result(0.9, 2.9, "two", True, True), 3.1)
    assert texts(said) == [(1, 93, "one two", True)]


def test_flush_is_due_once_for_what_was_sent() -> None:
    stream = Stream(1.0)
    assert not stream.flush()
    spoken(stream, 1, 1.0)
    assert stream.flush()
    assert not stream.flush()
    stream.add(1)
    assert stream.flush()


def test_behind_is_what_the_server_has_said_nothing_about() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 3.0)
    assert stream.behind == pytest.approx(3.0)
    stream.read(result(0, 2.5, "", False), 1.0)
    assert stream.behind == pytest.approx(0.5)


def test_too_many_questions_are_refused() -> None:
    stream = Stream(1.0)
    spoken(stream, 1, 3.0)
    for window in range(MAX_ASKS):
        assert stream.ask(1, window, 0.0) == []
    assert stream.ask(1, MAX_ASKS, 0.0) is None


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.0, 9.0, "all of it"),
        (1.05, 9.0, "all of it"),  # the server's bounds miss ours by a little
        (0.0, 1.9, "all of it"),
        (2.0, 9.0, ""),
        (0.0, 1.0, ""),
    ],
)
def test_part_without_words(low: float, high: float, text: str) -> None:
    assert part(result(1.0, 2.0, "all of it"), low, high) == text


@given(st.data())
def test_whatever_way_the_server_cuts_its_results_every_word_reaches_its_own_utterance(
    data: st.DataObject,
) -> None:
    """Utterances of words of 0.5 s; final results end anywhere between words, guesses come
    between; an utterance is flushed when it ends, or only by the next one's beginning."""
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    stream = Stream(100.0)
    known: dict[int, str] = {}
    asked: dict[int, int] = {}
    finals: dict[int, list[str]] = {}
    said: list[tuple[int, str]] = []  # every word of the stream, in order: utterance, text
    done = 0  # words with a final result

    def take(results: Results) -> None:
        for answer in stream.read(results, 0.0):
            if answer.final:
                finals.setdefault(answer.utterance, []).append(answer.text)
            known[answer.utterance] = answer.text

    def tell(upto: int, final: bool, flushed: bool = False) -> None:
        nonlocal done
        words = tuple(Word(said[i][1], i / 2 + 0.05, i / 2 + 0.45) for i in range(done, upto))
        take(result(done / 2, upto / 2, " ".join(w.text for w in words), final, flushed, words))
        done = upto if final else done

    for utterance, length in enumerate(lengths):
        stream.flush()
        stream.begin(utterance, 0.0)
        for word in range(length):
            stream.add(SECOND // 2)
            said.append((utterance, f"{utterance}.{word}"))
            step = data.draw(st.sampled_from(["nothing", "guess", "final", "guess"]))
            if step != "nothing" and done < len(said):
                upto = data.draw(st.integers(done + 1, len(said)))
                tell(upto, step == "final")
        if data.draw(st.booleans()):
            stream.flush()
            asked[utterance] = length
            for answer in stream.ask(utterance, length, 0.0) or []:
                finals.setdefault(answer.utterance, []).append(answer.text)
            if data.draw(st.booleans()) and done < len(said):
                tell(len(said), True, True)
    tell(len(said), True, True)

    for utterance, length in enumerate(lengths):
        whole = [f"{utterance}.{word}" for word in range(length)]
        if utterance in asked:
            assert finals[utterance] == [" ".join(whole)]
        heard = known.get(utterance, "").split()
        assert heard == whole[: len(heard)]
