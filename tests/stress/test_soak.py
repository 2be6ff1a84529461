"""The soak: what counts as flat, what a frame leaves behind, and a small run of it."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

from stress import soak, soak_garbage, soak_page
from stress.bout import Bout
from stress.soak_page import Look, Run
from threadline.threads.connection import Leg
from threadline.threads.vad import VadStage

WELL = Look(
    at=0.0,
    done=0,
    rss_mb=200.0,
    threads=11,
    fds=130,
    slots=40,
    collections=5,
    collecting_s=0.1,
    cpu_s=1.0,
)
REST = replace(WELL, slots=0, fds=40)


def run(kind="calls", *, per_second=None, last=REST, **fields):
    """Forty seconds under load, then one at rest; `per_second` changes the nth look."""
    change = per_second or (lambda second: {})
    looks = [
        replace(WELL, **{"at": float(second), "done": 100 * second, **change(second)})
        for second in range(40)
    ]
    return Run(kind, 40, [REST, *looks, replace(last, at=40.0, done=4000)], **fields)


def test_what_does_not_grow_is_flat():
    assert run().problems() == []
    assert soak_page.lines(run())[-1] == "verdict: flat"


def test_what_grows_is_told_and_what_it_grew_by():
    grown = run(
        per_second=lambda second: {"rss_mb": 200.0 + second}
    )  # 20 s from quarter to quarter
    assert grown.problems() == ["RSS in MB grew by 20.0"]
    threads = run(per_second=lambda second: {"threads": 11 + (second > 30)})
    assert threads.problems() == ["threads grew by 1.0"]
    descriptors = run(per_second=lambda second: {"fds": 130 + second})
    assert descriptors.problems() == ["descriptors grew by 20.0"]


def test_what_the_first_quarter_grows_by_is_the_warm_up():
    assert run(per_second=lambda second: {"rss_mb": 150.0 + 5 * min(second, 9)}).problems() == []


def test_a_slot_that_does_not_come_back_is_a_problem():
    (problem,) = run(last=replace(REST, slots=1)).problems()
    assert "slots" in problem


@pytest.mark.parametrize(
    "count", ["unanswered", "overstayed", "ended by the server", "dropped", "given up"]
)
def test_a_call_that_fails_is_a_problem(count):
    (problem,) = run(counts={"turns": 900, count: 2}).problems()
    assert problem.startswith("2 calls ")


def test_a_server_that_has_no_room_may_say_so():
    assert run(counts={"refused with 503": 7}).problems() == []


def test_under_a_steady_load_an_alarm_of_the_watchdog_is_false():
    alarms = {"stall: vad": 2, "stage is stalled: asr": 1, "no core for a stage: asr": 7}
    alarmed = run("steady", alarms=alarms)
    assert alarmed.problems() == ["2 alarms: stall", "1 alarms: stage is stalled"]
    assert "7 x 'no core for a stage'" in "\n".join(soak_page.lines(alarmed))
    assert run("steady", alarms={"no core for a stage: asr": 7}).problems() == []


def test_an_error_in_the_log_is_a_problem_in_either():
    for kind in ("calls", "steady"):
        problems = run(kind, alarms={"error: defect in a stage": 3}).problems()
        assert problems == ["3 errors in the log"]


def test_a_run_in_which_nobody_called_is_not_flat():
    assert Run("calls", 40, [REST, REST]).problems()
    assert Run("calls", 40, []).problems()


def test_a_run_is_kept_and_the_page_is_written_from_it(tmp_path):
    made = run(counts={"turns": 900}, logged={"info": 3}, alarms={"stall: vad": 1})
    made.save(tmp_path / "calls.json")
    loaded = Run.load(tmp_path / "calls.json")
    assert loaded == made
    garbage = {"the agent talks": [{"heard": 1000, "said": 1001, "objects": 7}]}
    soak_page.write(tmp_path, [loaded, run("steady")], garbage)
    page = (tmp_path / "soak.md").read_text()
    for line in (*soak_page.lines(made), *soak_page.lines(run("steady"))):
        assert f"- {line}" in page
    assert "| the agent talks | 1,000 | 1,001 | 7 |" in page
    assert (tmp_path / "soak.png").read_bytes()[:4] == b"\x89PNG"


# -- garbage --------------------------------------------------------------------------------------

measure = partial(soak_garbage.measure, calls=10, seconds=(0.4, 1.6))


@pytest.fixture
def silero(models):
    return models.path("silero-vad", "silero_vad.onnx")


@pytest.mark.parametrize("speaking", [False, True])
def test_a_frame_leaves_nothing_for_the_collector(silero, speaking):
    short, long = measure(silero, speaking=speaking)
    assert long.heard > 2 * short.heard > 0
    assert speaking or long.said > 2 * short.said > 0
    # What is left is of the clock's: once a second the watch thread draws its page.
    assert max(short.objects, long.objects) < long.heard / 20


@pytest.mark.parametrize(
    ("speaking", "where"), [(False, (Leg, "_send")), (True, (VadStage, "_hear"))]
)
def test_one_cycle_a_frame_is_found(silero, speaking, where, monkeypatch):
    made, name = where
    method = getattr(made, name)

    def leaks(*args):
        cycle = []
        cycle.append(cycle)
        return method(*args)

    monkeypatch.setattr(made, name, leaks)
    _, long = measure(silero, speaking=speaking)
    assert long.objects > long.heard / 4  # a window of the VAD is more than a frame


# -- the command -----------------------------------------------------------------------------------


def test_a_few_calls_of_every_kind(models, monkeypatch):
    monkeypatch.setattr(soak.Looks, "REST", 2.5)
    found = soak.short(40, 8, 1, (), Console(quiet=True))
    left = {name: many for name, many in found.counts.items() if name.startswith("left by ")}
    assert set(left) == {f"left by {way}" for way in soak.WAYS}
    assert sum(left.values()) == found.looks[-1].done == 40
    assert found.counts["turns"] > 5
    assert found.counts["frames heard"] > 40
    assert found.looks[-1].slots == 0
    assert found.looks[-1].rss_mb > 50
    assert not [problem for problem in found.problems() if "calls" in problem]


class Refusing:
    """A phone whose call is refused, until it is not."""

    refusals = 0

    def __init__(self, bout, number, address, rng):
        self.number = number

    def upgrade(self):
        Refusing.refusals -= 1
        return 503 if Refusing.refusals >= 0 else 101

    def close(self):
        pass


@pytest.mark.parametrize(("refusals", "given_up"), [(3, 0), (soak.GIVE_UP, 1)])
def test_who_is_refused_dials_again_and_gives_up_some_day(refusals, given_up, monkeypatch):
    monkeypatch.setattr(soak, "Caller", Refusing)
    monkeypatch.setattr(soak, "DIAL_AGAIN", 0.0)
    monkeypatch.setattr(Refusing, "refusals", refusals)
    callers = soak.Callers(Bout("soak", 1, 1.0), 0, ("", 0), None, calls=1, at_once=4)
    for _ in range(refusals):
        assert callers._place()
    assert callers.counts == Counter({"refused with 503": refusals, "given up": given_up})
    assert callers.done == given_up
    assert bool(callers._refused[1]) is not bool(given_up)  # else the same number is next
    if given_up:
        assert not callers._place()  # it was the only one
    callers._poll.close()


def test_how_long_has_to_be_said(capsys):
    assert soak.main([]) == 2
    assert "--calls 10000" in capsys.readouterr().err
