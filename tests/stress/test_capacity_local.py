"""Capacity with everything local: who speaks when, what counts, and the two halves of the page."""

import random

import pytest

from stress.capacity import load, local_page, page
from stress.capacity.run import Result
from threadline.audio import mulaw
from threadline.threads.phone_line import CallPlan
from threadline.wire.script import Barge, Clip

LINE, CUT = Clip("line", b"\x01" * 8_000, (100, 7_900)), Clip("cut", b"\x02" * 4_000, (0, 4_000))
MACHINE = {"processor": "an engine", "kernel": "6"}


def result(calls, p95=500.0, **fields):
    cpu = {"asr-decode": 2.0, "tts": 3.0, "log": 0.0001}
    return Result("free", calls, p95 - 50, p95, 120.0, 1.0, 1.0,
                  **{"underruns": 0, "lost": 0, "cpu": cpu, **fields})  # fmt: skip


def test_scattered_callers_meet_as_chance_has_it_but_cut_in_at_once():
    plan = CallPlan("ws://x", (LINE, LINE, CUT, LINE), calls=5, barge=Barge(1.5, 2))
    calls = load._scattered(plan)
    assert [one.calls for one in calls] == [1] * 5
    assert {one.barge for one in calls} == {Barge(load.SECOND_SENTENCE, 2)}
    waits = []
    for one in calls:
        for clip, said in zip(plan.clips, one.clips, strict=True):
            wait = len(said.codes) - len(clip.codes)
            assert said.codes == mulaw.SILENCE_BYTE * wait + clip.codes
            assert said.speech == (clip.speech[0] + wait, clip.speech[1] + wait)
            waits.append((said.name, wait))
    assert {wait for name, wait in waits if name == "cut"} == {0}
    assert len({wait for name, wait in waits if name == "line"}) == 15


def test_the_waits_are_those_of_the_last_time():
    plan = CallPlan("ws://x", (LINE, LINE), calls=3)
    random.seed()
    assert load._scattered(plan) == load._scattered(plan)


def test_calls_that_were_answered_late_still_count_and_lost_ones_do_not():
    runs = [result(1), result(4, 900.0), result(8, 1400.0), result(12, 1600.0)]
    assert page.held(runs, "free") == 1
    assert local_page.answered(runs) == 8
    assert local_page.answered([*runs[:2], result(8, 1400.0, lost=1)]) == 4
    assert local_page.answered([*runs[:2], result(8, 1400.0, underruns=1)]) == 4


def test_each_half_of_the_page_leaves_the_other_alone(tmp_path):
    path = tmp_path / "capacity.md"
    local_page.write(tmp_path, [result(1), result(2)], MACHINE)
    assert path.read_text().startswith(page.LOCAL)
    page.write(tmp_path, [result(1), result(60)], MACHINE)
    text = path.read_text()
    assert text.startswith("# How many calls one core carries\n")
    assert text.count(page.LOCAL) == text.count("## By thread") == 1
    first = text.partition(page.LOCAL)[0]
    local_page.write(tmp_path, [result(1), result(2), result(6, 2_000.0)], MACHINE)
    again = path.read_text().partition(page.LOCAL)
    assert again[0] == first
    assert "| 6 | 1950 | 2000 |" in again[2]
    page.write(tmp_path, [result(1), result(70)], MACHINE)
    last = path.read_text().partition(page.LOCAL)
    assert last[2] == again[2]
    assert "| 70 |" in last[0]
    assert (tmp_path / "capacity-local.png").exists()


def test_the_half_says_what_a_core_carries(tmp_path):
    local_page.write(tmp_path, [result(1), result(4), result(8, 1_200.0)], MACHINE)
    text = (tmp_path / "capacity.md").read_text()
    assert "| within the service level of above | 4 |" in text
    assert "than a single call's, no gaps | 8 |" in text
    assert "(5.0 % of it, of 4 calls) | 20 |" in text
    assert "| tts | 3.000 |\n| asr-decode | 2.000 |\n" in text
    assert "| log |" not in text


@pytest.mark.parametrize("calls", [1, 60])
def test_the_cascade_s_half_needs_no_other(tmp_path, calls):
    page.write(tmp_path, [result(calls)], MACHINE)
    assert page.LOCAL not in (tmp_path / "capacity.md").read_text()
