"""The stages of a turn: they follow one another, and they add up."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.observe.turns import STAGES, Turn

MS = 1_000_000
MARKS = ("spoke_until", "turn_over", "transcript", "first_clause", "first_audio", "first_frame")


def turn(*marks):
    return Turn(1, **dict(zip(MARKS, marks, strict=True)))


def test_each_stage_lies_between_its_two_marks():
    stages = turn(*(at * MS for at in (1000, 1420, 1500, 1501, 1581, 1631))).stages_ms()
    assert stages == {
        "endpoint": 420,
        "recognise": 80,
        "think": 1,
        "speak": 80,
        "pace": 50,
    }


@given(st.lists(st.integers(1, 10**14), min_size=6, max_size=6))
def test_the_stages_add_up_to_the_response_time(instants):
    marks = sorted(instants)
    stages = turn(*marks).stages_ms()
    assert list(stages) == list(STAGES)
    for name, (before, after) in zip(STAGES, pairwise(marks), strict=True):
        assert stages[name] == pytest.approx((after - before) / MS, abs=0.051)
    assert sum(stages.values()) == pytest.approx((marks[-1] - marks[0]) / MS, abs=0.26)


@pytest.mark.parametrize("missing", range(6))
def test_while_a_mark_is_missing_nothing_is_known(missing):
    marks = [1000 * MS] * 6
    marks[missing] = 0
    assert turn(*marks).stages_ms() == {}


def test_turns_do_not_share_what_was_said():
    one, two = Turn(1), Turn(2)
    one.said.append("Hello.")
    assert two.said == []
