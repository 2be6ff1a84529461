"""What counts as a stall that was reported, and how one is planted."""

from dataclasses import replace

import pytest

from stress import stalls_server
from stress.stalls import HEAD, Case, Report, _case, table

BEGAN, ENDED = 1000.0, 1000.05
FIELDS = {
    "stage": "vad",
    "ms": 50.2,
    "stack": "Stack (most recent call first):\n  File stalls_server.py, line 1 in planted_sleep",
    "depths": {"vad": 3, "asr": 0},
    "audio_depths": {"heard": 2},
    "gc": {"automatic": False, "counts": [12, 0, 0], "last_ago_s": 3.2},
}
PLANTED = {
    "thread": "vad",
    "kind": "sleeps",
    "function": "planted_sleep",
    "times": [int(BEGAN * 1e9), int(ENDED * 1e9)],
}


def told(at=ENDED, event="stall", **fields):
    return Report(at, event, FIELDS | fields)


def test_a_stall_that_was_told_in_full_is_well():
    case = _case(PLANTED, [told(stage="asr"), told(BEGAN - 1), told(BEGAN + 0.06)])
    assert case.well
    assert case.after_ms == pytest.approx(60)


@pytest.mark.parametrize(
    "report",
    [
        told(BEGAN - 0.1),  # before it
        told(ENDED + 1.1),  # too late
        told(stage="asr"),
        told(event="no core for a stage"),
        told(stack="  File stalls_server.py in step"),
    ],
)
def test_one_that_was_not_is_missed(report):
    assert not _case(PLANTED, [report]).well


@pytest.mark.parametrize("lacking", ["depths", "audio_depths", "gc"])
def test_a_report_has_the_rings_and_the_collector(lacking):
    fields = {name: value for name, value in FIELDS.items() if name != lacking}
    assert not _case(PLANTED, [Report(ENDED, "stall", fields)]).well


def test_the_table_has_a_cell_for_each_heading():
    case = _case(PLANTED, [told()])
    lines = table([case, replace(case, report=None)])
    assert {line.count("|") for line in lines} == {len(HEAD) + 1}
    assert "names `planted_sleep`" in lines[2]
    assert "vad 3; heard 2" in lines[2]
    assert "never" in lines[3]


def test_what_is_planted_comes_once_before_the_step_and_nothing_of_it_is_left():
    done = []

    class Stage:
        def step(self, what):
            done.append(what)
            return "stepped"

    stage = Stage()
    stalls_server._before(stage, "step", lambda: done.append("planted"))
    assert [stage.step("first"), stage.step("second")] == ["stepped", "stepped"]
    assert done == ["planted", "first", "second"]
    assert not vars(stage)


def test_a_case_without_a_report_has_no_time():
    case = Case("vad", "sleeps", "planted_sleep", (BEGAN, ENDED), None)
    assert case.after_ms != case.after_ms  # nan
