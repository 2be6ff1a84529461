"""A call as a trace: what stands below what, when it was, and what is not told."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.observe.spans import CallEnd, CallStart, spans
from threadline.observe.turns import STAGES, Turn

MS = 1_000_000
SINCE_1970 = 1_800_000_000 * 10**9
CALL = CallStart("CA1", 900 * MS)
SECRET = "my password is swordfish"


def turn(*, number=1, clause=2, marks=(1000, 1420, 1500, 1650, 1670, 1750, 1800), **more):
    spoke, over, known, token, first, audio, frame = (at * MS for at in marks)
    fields = {"heard": "A table for two.", "said": ["Very well.", "At eight."], **more}
    return Turn(
        number,
        clause=clause,
        spoke_until=spoke,
        turn_over=over,
        transcript=known,
        first_token=token,
        first_clause=first,
        first_audio=audio,
        first_frame=frame,
        ended=fields.pop("ended", 3000 * MS),
        **fields,
    )


def told(record, call=CALL):
    return spans((call, record), SINCE_1970)


def test_a_turn_is_below_its_call_and_its_stages_are_below_it():
    (call,) = told(CallEnd(9000 * MS, 3, "the caller hung up", failed=False))
    one, *stages = told(turn())
    assert (call.name, one.name, [stage.name for stage in stages]) == ("call", "turn", list(STAGES))
    assert (call.parent_id, one.parent_id) == (0, call.span_id)
    assert {stage.parent_id for stage in stages} == {one.span_id}
    assert {span.trace_id for span in (one, *stages)} == {call.trace_id}
    assert 0 < call.trace_id < 1 << 128
    ids = [span.span_id for span in (call, one, *stages)]
    assert len(set(ids)) == len(ids)
    assert all(0 < number < 1 << 64 for number in ids)
    assert (call.start, call.end) == (SINCE_1970 + 900 * MS, SINCE_1970 + 9000 * MS)
    assert call.attributes == {
        "threadline.call_id": "CA1",
        "threadline.turns": 3,
        "threadline.end": "the caller hung up",
    }
    assert call.problem == ""


@given(st.lists(st.integers(1, 10**9), min_size=8, max_size=8))
def test_stages_follow_one_another_within_their_turn_and_last_as_long_as_the_log_says(instants):
    *marks, ended = sorted(instants)
    record = turn(marks=marks, ended=ended * MS)
    one, *stages = told(record)
    assert (one.start, stages[0].start) == (SINCE_1970 + marks[0] * MS,) * 2
    assert all(before.end == after.start for before, after in pairwise(stages))
    assert stages[-1].end == SINCE_1970 + marks[-1] * MS <= one.end == SINCE_1970 + ended * MS
    lasted = {stage.name: (stage.end - stage.start) / MS for stage in stages}
    assert lasted == record.stages_ms()


def test_a_turn_that_came_to_no_answer_shows_how_far_it_came():
    over = turn(marks=(1000, 1420, 1500, 0, 0, 0, 0), clause=0, said=[], ended=1510 * MS)
    one, *stages = told(over)
    assert [stage.name for stage in stages] == ["endpoint", "recognise"]
    assert one.end == SINCE_1970 + 1510 * MS
    assert one.attributes["threadline.words.said"] == 0


def test_a_greeting_answers_nobody():
    """It has no caller's sound to begin with."""
    greeting = turn(number=0, heard=None, marks=(0, 0, 0, 0, 950, 960, 970), ended=2000 * MS)
    one, *stages = told(greeting)
    assert [stage.name for stage in stages] == ["phrase", "speak", "pace"]
    assert one.start == stages[0].start == SINCE_1970 + 950 * MS
    assert one.problem == ""


def test_what_is_counted_and_what_is_not_told():
    one, *stages = told(
        turn(
            heard=SECRET,
            said=["So it is swordfish.", "Thank you."],
            played="So it",
            unplayed="is swordfish. Thank you.",
            fillers=["One moment, swordfish."],
            interrupted=True,
            early=True,
            pauses=2,
            why="complete",
            source="whisper",
        )
    )
    assert one.attributes == {
        "threadline.call_id": "CA1",
        "threadline.turn": 1,
        "threadline.interrupted": True,
        "threadline.early": True,
        "threadline.pauses": 2,
        "threadline.fillers": 1,
        "threadline.words.heard": 4,
        "threadline.words.said": 6,
        "threadline.words.played": 2,
        "threadline.why": "complete",
        "threadline.source": "whisper",
    }
    assert "swordfish" not in repr((one, stages))


def test_failures_are_marked():
    (unheard, *_) = told(turn(heard=None))
    assert unheard.problem == "the recogniser failed"
    (call,) = told(CallEnd(9000 * MS, 1, "a defect in reply", failed=True))
    assert call.problem == "a defect in reply"


def test_ids_are_of_one_call_and_one_turn():
    """A greeting, an answer and the nudge after it; then another call of the same carrier's id."""
    records = [turn(number=0, clause=1), turn(clause=2), turn(clause=3), turn(number=2, clause=0)]
    made = [told(record)[0].span_id for record in records]
    assert len(set(made)) == len(made)
    assert made == [told(record)[0].span_id for record in records], "whenever they are asked for"
    again = CallStart("CA1", 901 * MS)
    assert told(turn(), again)[0].trace_id != told(turn())[0].trace_id


@pytest.mark.parametrize("call_id", ["", "\ud800", "CA\x00", "x" * 65_000])
def test_whatever_a_peer_calls_its_call_can_be_sent(call_id):
    call = CallStart(call_id, 900 * MS)
    for record in (turn(), CallEnd(9000 * MS, 1, call_id, failed=True)):
        first, *_ = told(record, call)
        sent = first.attributes["threadline.call_id"]
        assert len(sent.encode()) <= 200
        assert len(first.problem.encode()) <= 200
