"""The stages of a turn: they follow one another, and they add up."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.observe.turns import INSTANTS, STAGES, Turn

MS = 1_000_000
MARKS = (
    "spoke_until",
    "turn_over",
    "transcript",
    "first_token",
    "first_clause",
    "first_audio",
    "first_frame",
)


def turn(*marks, **more):
    return Turn(1, **dict(zip(MARKS, marks, strict=True)), **more)


def test_each_stage_lies_between_its_two_marks():
    stages = turn(*(at * MS for at in (1000, 1420, 1500, 1650, 1670, 1750, 1800))).stages_ms()
    assert stages == {
        "endpoint": 420,
        "recognise": 80,
        "think": 150,
        "phrase": 20,
        "speak": 80,
        "pace": 50,
    }


@given(st.lists(st.integers(1, 10**14), min_size=7, max_size=7))
def test_the_stages_add_up_to_the_response_time(instants):
    marks = sorted(instants)
    stages = turn(*marks).stages_ms()
    assert list(stages) == list(STAGES)
    for name, (before, after) in zip(STAGES, pairwise(marks), strict=True):
        assert stages[name] == pytest.approx((after - before) / MS, abs=0.051)
    assert sum(stages.values()) == pytest.approx((marks[-1] - marks[0]) / MS, abs=0.31)


@pytest.mark.parametrize("missing", [at for at, name in enumerate(MARKS) if name != "first_token"])
def test_while_a_mark_is_missing_nothing_is_known(missing):
    marks = [1000 * MS] * 7
    marks[missing] = 0
    assert turn(*marks).stages_ms() == {}


def test_a_local_brain_has_no_tokens_and_phrases_at_once():
    stages = turn(*(at * MS for at in (1000, 1200, 1210, 0, 1212, 1300, 1320))).stages_ms()
    assert (stages["think"], stages["phrase"]) == (2, 0)


@given(st.lists(st.integers(1, 10**12), min_size=3, max_size=3), st.data())
def test_what_an_early_answer_had_ready_counts_from_the_words_on(heard, data):
    """It may have its first token, clause and even audio before the words are final."""
    spoke, over, known = sorted(heard)
    ready = sorted(data.draw(st.lists(st.integers(spoke, known), min_size=3, max_size=3)))
    frame = known + data.draw(st.integers(0, 10**9))
    stages = turn(spoke, over, known, *ready, frame).stages_ms()
    assert (stages["think"], stages["phrase"], stages["speak"]) == (0, 0, 0)
    assert stages["pace"] == pytest.approx((frame - known) / MS, abs=0.051)
    assert sum(stages.values()) == pytest.approx((frame - spoke) / MS, abs=0.31)


def test_the_instants_count_from_the_callers_last_sound():
    one = turn(*(at * MS for at in (1000, 1200, 1210, 1350, 1360, 1450, 1500)),
               asked=1100 * MS, voice_asked=1361 * MS, early=True)  # fmt: skip
    assert one.at_ms() == {
        "turn_over": 200, "transcript": 210, "asked": 100, "first_token": 350,
        "first_clause": 360, "voice_asked": 361, "first_audio": 450, "first_frame": 500,
    }  # fmt: skip
    assert tuple(one.at_ms()) == INSTANTS
    assert Turn(0, first_frame=5 * MS).at_ms() == {}, "a greeting follows no sound"


def test_a_filler_is_timed_apart():
    one = turn(*(at * MS for at in (1000, 1200, 1210, 3350, 3360, 3450, 3500)),
               fillers=["One moment."], filler_frame=2000 * MS)  # fmt: skip
    assert one.filler_ms() == 1000
    assert sum(one.stages_ms().values()) == 2500, "to the answer, whatever bridged the wait"
    assert Turn(1).filler_ms() is None


def test_the_record_is_json_and_holds_everything():
    one = Turn(3, heard="hi", said=["Hello.", "Who is it?"], interrupted=True, why="complete",
               source="whisper", played="Hello.", unplayed="Who is it?", pauses=2,
               decode_began=1 * MS, decode_ended=41 * MS)  # fmt: skip
    record = one.record()
    assert json.loads(json.dumps(record)) == record
    assert record["said"] == "Hello. Who is it?"
    assert (record["turn"], record["heard"], record["decode_ms"]) == (3, "hi", 40)
    assert (record["played"], record["unplayed"]) == ("Hello.", "Who is it?")
    assert (record["interrupted"], record["pauses"], record["why"]) == (True, 2, "complete")
    assert (record["fillers"], record["filler_ms"], record["stages_ms"]) == ([], None, {})


def test_turns_do_not_share_what_was_said():
    one, two = Turn(1), Turn(2)
    one.said.append("Hello.")
    one.fillers.append("One moment.")
    assert (two.said, two.fillers) == ([], [])
