"""The explorer itself: it finds what it must, misses no interleaving, and can repeat itself."""

import pytest

from stress import explore
from stress.explorer.beside import Change, Code, Stale, beside, changed
from stress.explorer.jobs import MODELS, named
from stress.explorer.memory import Cells, here
from stress.explorer.search import Model, Unplayable, decode, encode, replay, search
from stress.explorer.world import STEP, Forbidden, World


@pytest.fixture(scope="module")
def code():
    with beside() as module:
        yield Code(module)


def explored(model, code):
    found = search(model, code, 60.0)
    assert found.complete or found.failure
    return found


# -- the search ----------------------------------------------------------------------------------


def outcomes(code, *threads, weak=True, places=2):
    """Every final result of threads that are functions of shared cells (or of plain ones)."""
    seen = set()

    def build(code, world):
        cells = Cells(places)
        results = [None] * len(threads)

        def work(n, thread):
            results[n] = thread(cells)

        for n, thread in enumerate(threads):
            world.spawn(f"thread {n}", lambda n=n, thread=thread: work(n, thread))
        return lambda: seen.add((*results, *[cells[i] for i in range(places)]))

    explored(Model("x/x", build, weak=weak), code)
    return seen


def set_then_look(mine, other):
    def work(cells):
        cells[mine] = 1
        return cells[other]

    return work


def test_a_later_load_overtakes_a_store_only_in_the_weak_memory(code):
    """Both may read the old value: that is what breaks "say that I sleep, then look"."""
    both = set_then_look(0, 1), set_then_look(1, 0)
    strong = outcomes(code, *both, weak=False)
    assert strong == {(1, 1, 1, 1), (None, 1, 1, 1), (1, None, 1, 1)}
    assert outcomes(code, *both) == {*strong, (None, None, 1, 1)}


def plainly(cells, where, value):
    here.world.store(cells._places[where], value, release=False)


def test_a_plain_store_is_overtaken_and_a_releasing_one_is_not(code):
    def publish(plain):
        def work(cells):
            plainly(cells, 0, "data")
            if plain:
                plainly(cells, 1, "flag")
            else:
                cells[1] = "flag"

        return work

    def look(cells):
        return cells[1], cells[0]

    torn = ("flag", None)
    for plain in (False, True):
        seen = {result[1] for result in outcomes(code, publish(plain), look)}
        assert (torn in seen) is plain
        assert seen - {torn} == {(None, None), (None, "data"), ("flag", "data")}


def test_a_store_to_the_same_place_never_overtakes(code):
    def work(cells):
        plainly(cells, 0, 1)
        plainly(cells, 0, 2)
        return cells[0]

    assert outcomes(code, work, places=1) == {(2, 2)}


def test_every_interleaving_of_increments_is_met(code):
    def add(cells):
        cells[0] = (cells[0] or 0) + 1
        cells[0] = (cells[0] or 0) + 1

    finals = {result[-1] for result in outcomes(code, add, add, weak=False, places=1)}
    assert finals == {2, 3, 4}
    three = {result[-1] for result in outcomes(code, add, add, add, weak=False, places=1)}
    assert three == {2, 3, 4, 5, 6}


def lost_update(code, world):
    cells = Cells(1)
    cells[0] = 0

    def add():
        cells[0] = cells[0] + 1

    world.spawn("left", add)
    world.spawn("right", add)

    def check():
        if cells[0] != 2:
            raise Forbidden(f"two increments make {cells[0]}")

    return check


@pytest.mark.parametrize("how", [{}, {"bound": 1}, {"samples": 50}, {"weak": False}])
def test_each_kind_of_search_finds_a_lost_update_and_its_schedule_repeats_it(code, how):
    model = Model("lost/update", lost_update, **how)
    found = explored(model, code)
    assert found.failure.startswith("FORBIDDEN: two increments make 1")
    world, failure = replay(model, code, found.schedule)
    assert failure.startswith("FORBIDDEN: two increments make 1")
    assert {line.thread for line in world.lines} == {0, 1}
    assert search(model, code, 60.0).schedule == found.schedule


def test_without_a_preemption_there_is_no_lost_update(code):
    assert not explored(Model("lost/update", lost_update, bound=0), code).failure


def test_a_sleeper_that_nobody_wakes_is_a_failure_and_a_daemon_is_not(code):
    def build(daemon):
        def build(code, world):
            world.spawn("sleeper", lambda: world.until(lambda: False, "ever"), daemon=daemon)
            return lambda: None

        return build

    assert "sleeper sleeps for ever" in explored(Model("s/s", build(False)), code).failure
    assert not explored(Model("s/s", build(True)), code).failure


def test_a_schedule_survives_being_written_down():
    log = [(0, STEP), (1, STEP), (1, 0), (0, 2), (0, 12), (2, STEP)]
    assert encode(log) == "abBA2A12c"
    assert decode(encode(log)) == log
    with pytest.raises(Unplayable, match="'-' is no step"):
        decode("a-b")


def test_a_schedule_of_something_else_is_refused(code):
    with pytest.raises(Unplayable, match="step 1 of this schedule, F"):
        replay(Model("lost/update", lost_update), code, "F")


# -- the copy ------------------------------------------------------------------------------------


def test_the_copy_is_apart_from_what_is_imported(code):
    from threadline.threads import ring

    assert code.ring is not ring
    assert "at" in ring.Cursor.__slots__
    assert not isinstance(ring.Cursor.__dict__["at"], property)


def test_a_change_that_no_longer_fits_fails_loudly():
    with pytest.raises(Stale, match=r"threads/ring\.py holds this text 0 times"):
        changed([Change("ring", "not in there", "")])
    with pytest.raises(Stale, match="times, not once"):
        changed([Change("ring", "self", "")])


# -- the production code ---------------------------------------------------------------------------

QUICK = (
    "push-pop/audio", "push-pop/events", "wrap/events-255", "full/audio-1", "empty/events",
    "skip-stale/all", "two-producers/events", "inbox/two", "shutdown/working", "clear/weak",
)  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_the_smallest_models_are_exhausted_and_forbid_nothing(code, name):
    (model,) = named(name)
    found = explored(model, code)
    assert (found.failure, found.complete) == ("", True)
    assert found.states > 5


def test_every_family_has_a_member_that_is_exhausted():
    exhausted = {model.name.partition("/")[0] for model in MODELS if model.how == "exhausted"}
    assert exhausted >= {
        "push-pop", "wrap", "full", "empty", "skip-stale", "inbox", "pause", "commit", "clear",
        "slot-reuse", "first-words", "shutdown", "defect",
    }  # fmt: skip


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_a_trace_and_what_replays_it(capsys):
    assert explore.main(["--only", "push-pop/events", "--replay", "aAAb"]) == 0
    out = capsys.readouterr().out
    assert "producer" in out.splitlines()[0]
    assert "consumer" in out.splitlines()[0]
    assert "EventRing.push" in out
    assert "Nothing forbidden happens." in out


def test_a_planted_race_is_explained(capsys):
    only = ["--only", "push-pop/events", "--mutant", "publish-first-event"]
    assert explore.main(only) == 1
    out = capsys.readouterr().out
    assert "FORBIDDEN" in out
    command = out.strip().splitlines()[-1]
    assert explore.main(command.split()[3:]) == 1
    assert "FORBIDDEN" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [
    ["--only", "nothing"], ["--mutant", "nothing"], ["--replay", "a"],
    ["--only", "inbox/two", "--replay", "z!"],
])  # fmt: skip
def test_a_wrong_argument_gets_one_sentence(capsys, wrong):
    assert explore.main(wrong) == 2
    assert len(capsys.readouterr().out.strip().splitlines()) == 1


def test_threads_run_only_when_chosen():
    world = World(weak=False)
    here.world = world
    cells = Cells(1)
    thread = world.spawn("one", lambda: cells.__setitem__(0, 1))
    assert cells[0] is None
    assert world.choices() == [(0, STEP)]
    world.act((0, STEP))
    assert thread.done
    assert cells[0] == 1
    world.end()
