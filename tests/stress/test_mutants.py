"""The planted races: all still fit the source, and a few of them are seen to be found."""

import pytest

from stress import mutants, native
from stress.explorer.beside import beside, changed
from stress.explorer.jobs import named
from stress.mutations import MUTANTS, Mutant


@pytest.mark.parametrize("name", MUTANTS)
def test_every_change_fits_the_source_and_still_compiles(name):
    mutant = MUTANTS[name]
    for module, source in changed(mutant.changes).items():
        compile(source, module, "exec")
    assert mutant.models or mutant.native or mutant.unit
    for model in mutant.models:
        assert len(named(model)) == 1


QUICK = (
    "publish-first-audio", "advance-first-event", "index-in-a-view", "view-kept", "drained-after",
    "flag-without-wake", "checked-at-the-queue", "no-generation",
)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_the_explorer_finds_a_planted_race(name):
    mutant = MUTANTS[name]
    verdict = mutants._explorer(mutant, mutant.models[0])
    assert verdict.killed, verdict.how
    assert verdict.schedules >= 1


def test_the_projects_own_tests_run_on_the_changed_source():
    verdict = mutants._unit("two-producers", MUTANTS["two-producers"])
    assert verdict.killed, verdict.how
    assert "a_second_producer" in verdict.how


def test_two_threads_find_a_planted_race_and_none_without_it():
    assert mutants._native(MUTANTS["one-buffer"]).killed
    with beside() as module:
        failure, items = native.race(module("ring"), 0.5)
    assert not failure
    assert items > 100


def test_a_survivor_fails_the_command(monkeypatch, capsys):
    harmless = Mutant("nothing at all", (), ("push-pop/events",))
    verdict = mutants._explorer(harmless, "push-pop/events")
    assert not verdict.killed
    assert verdict.how == "survives exhausted"
    monkeypatch.setattr(mutants, "side_by_side", lambda jobs: [(0, [verdict])])
    monkeypatch.setitem(MUTANTS, "harmless", harmless)
    assert mutants.main(["--only", "harmless"]) == 1
    assert "harmless" in capsys.readouterr().out.strip().splitlines()[-1]


def test_an_unknown_mutant_is_named(capsys):
    assert mutants.main(["--only", "nothing"]) == 2
    assert "No mutant is called nothing" in capsys.readouterr().out
