"""Short stalls are found while they last, and told apart from a machine without a core."""

import threading
import time

import pytest
from helpers import DEADLINE, Worker, until

from threadline.threads import awake, stalls
from threadline.threads.awake import LIMIT_MS, PULSE_MS, Awake, Pulse
from threadline.threads.stalls import LOOK_SECONDS, Stage, Stalls

MS = 1_000_000


class Records:
    def __init__(self):
        self.all = []

    def __getattr__(self, level):
        return lambda event, **fields: self.all.append((level, event, fields))


@pytest.fixture
def records(monkeypatch):
    made = Records()
    monkeypatch.setattr(stalls, "_log", made)
    return made


class Sleeper:
    """A stage whose thread stands in `the_culprit`; when it is awake, the test says."""

    def __init__(self, name="vad"):
        self.over = threading.Event()
        self.worker = Worker(self.the_culprit, name)
        self.stage = Stage(name, self.worker.thread, lambda: 0, lambda: None)

    def the_culprit(self):
        assert self.over.wait(DEADLINE)

    def wakes(self, at_ms):
        self.stage.awake.since = at_ms * MS

    def sleeps(self, at_ms):
        self.stage.awake._judge(at_ms * MS)
        self.stage.awake.since = 0


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A thread that is asked has time to answer, however busy the machine is."""
    monkeypatch.setattr(stalls, "_ANSWER_MS", 1000 * DEADLINE)


@pytest.fixture(autouse=True)
def times(monkeypatch):
    """What the kernel says of every thread: ns that it ran and waited for a core."""
    found = [0, 0]
    for module in (awake, stalls):
        monkeypatch.setattr(module, "core_times", lambda thread=None: tuple(found))
    return found


@pytest.fixture
def sleeper():
    made = Sleeper()
    yield made
    made.over.set()
    made.worker.join()


def looks(made, begin, end, step=20):
    for at in range(begin, end + 1, step):
        made.look(at * MS)


def test_a_stall_is_told_once_with_its_stack_and_what_else_is_known(sleeper, records):
    made = Stalls([sleeper.stage], lambda: {"depths": {"vad": 3}})
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    looks(made, 1040, 1100)
    assert records.all == []  # how long it takes is known when it is over
    sleeper.sleeps(1111)
    looks(made, 1120, 1200)
    ((level, event, fields),) = records.all
    assert (level, event, fields["stage"]) == ("warning", "stall", "vad")
    assert fields["ms"] == 90.0
    assert "the_culprit" in fields["stack"]
    assert fields["depths"] == {"vad": 3}
    assert (stalled(made), starved(made)) == ([1], [0])


def test_an_answer_that_comes_late_is_still_the_answer(sleeper, records, monkeypatch):
    stacks = Stacks()
    monkeypatch.setattr(stalls, "stacks", lambda: stacks)
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    made.look(1040 * MS)
    made.look(1060 * MS)  # asked
    stacks.late = "in the_culprit"
    sleeper.sleeps(1071)
    made.look(1080 * MS)
    ((_, event, fields),) = records.all
    assert (event, fields["stack"]) == ("stall", "in the_culprit")


class Stacks:
    """Those of a thread that has no core."""

    late = ""

    def of(self, thread, wait_ms):
        return ""

    def written(self):
        return self.late


def stalled(made):
    return [one.value for one in made.samples() if "slow" in one.name]


def starved(made):
    return [one.value for one in made.samples() if "starved" in one.name]


@pytest.mark.parametrize("phase", range(0, 24, 2))
def test_fifty_ms_are_never_missed_wherever_the_looks_fall(sleeper, records, phase):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1096, 24)  # each 4 ms late
    sleeper.wakes(1096 + phase)
    looks(made, 1120, 1096 + phase + 50, 24)
    sleeper.sleeps(1096 + phase + 50)
    looks(made, 1096 + phase + 51, 1300, 24)
    ((_, event, fields),) = records.all
    assert (event, fields["ms"]) == ("stall", 50.0)
    assert "the_culprit" in fields["stack"]


@pytest.mark.parametrize("phase", range(0, 20, 2))
def test_nor_in_an_event_loop(sleeper, records, phase):
    pulse = Pulse()
    made = Stalls([Stage("io", sleeper.worker.thread, lambda: 0, lambda: None, pulse)], dict)
    began, ended = 1100 + phase, 1100 + phase + 50
    asked = []
    for at in range(1000, 1300, 20):
        if asked and at >= ended:
            pulse._came_round(ended * MS)
            asked.clear()
        made.look(at * MS)
        if at < began:
            pulse._came_round(at * MS)  # at once
        else:
            asked.append(at)
    pulse.close()
    ((_, event, fields),) = records.all
    assert event == "stall"
    assert PULSE_MS < fields["ms"] <= 50
    assert "the_culprit" in fields["stack"]


def test_a_turn_within_its_limit_is_no_stall(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    for begin in range(1000, 2000, 40):  # awake all the time, but each turn is short
        sleeper.wakes(begin)
        looks(made, begin, begin + 39, 13)
        sleeper.sleeps(begin + 39)
    looks(made, 2000, 2100)
    assert records.all == []


def test_a_look_that_is_itself_late_accuses_nobody(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    made.look(1300 * MS)  # this thread did not run either
    sleeper.sleeps(1310)
    looks(made, 1320, 1400)
    assert records.all == []


def test_nobody_is_accused_of_a_collection(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    sleeper.wakes(1001)
    looks(made, 1000, 1012)
    made.stood_still(1012 * MS, 1060 * MS)  # this thread ran, so its looks are excused
    looks(made, 1015, 1064)
    sleeper.sleeps(1065)
    looks(made, 1066, 1098)
    assert records.all == []
    sleeper.wakes(1100)
    looks(made, 1099, 1102)
    made.stood_still(1102 * MS, 1110 * MS)
    looks(made, 1111, 1154)
    sleeper.sleeps(1155)
    looks(made, 1156, 1180)
    assert [event for _, event, _ in records.all] == ["stall"]  # what is left is long enough


def test_but_what_goes_on_after_a_late_look_is_told(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    looks(made, 1300, 1340)
    sleeper.sleeps(1341)
    looks(made, 1360, 1400)
    assert [event for _, event, _ in records.all] == ["stall"]


def test_a_thread_that_waited_for_a_core_is_starved_and_not_stalled(sleeper, records, times):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    looks(made, 1040, 1080)
    times[:] = 5 * MS, 45 * MS  # the kernel counts a wait when it is over
    sleeper.sleeps(1090)
    looks(made, 1100, 1120)
    ((level, event, fields),) = records.all
    assert (level, event) == ("info", "no core for a stage")
    assert (fields["ran_ms"], fields["waited_for_core_ms"]) == (5.0, 45.0)
    assert (stalled(made), starved(made)) == ([0], [1])


def test_who_was_too_long_even_without_the_waiting_is_stalled(sleeper, records, times):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    looks(made, 1040, 1120)
    times[:] = 60 * MS, 50 * MS
    sleeper.sleeps(1131)
    looks(made, 1140, 1160)
    ((_, event, fields),) = records.all
    assert (event, fields["ms"], fields["waited_for_core_ms"]) == ("stall", 110.0, 50.0)


def test_a_look_that_is_late_for_want_of_a_core_does_accuse(sleeper, records, monkeypatch):
    itself = Stage("watch", threading.current_thread(), lambda: 0, lambda: None)
    itself.awake.since = 1
    waited = [0]

    def of(thread=None):
        return 0, waited[0] * (thread is itself.thread)

    for module in (awake, stalls):
        monkeypatch.setattr(module, "core_times", of)
    made = Stalls([sleeper.stage], dict)
    made.begin(itself)
    made.look(1000 * MS)
    sleeper.wakes(1001)
    made.look(1020 * MS)
    waited[0] = 60 * MS
    made.look(1100 * MS)
    sleeper.sleeps(1110)
    looks(made, 1120, 1140)
    made.end()
    assert [fields["stage"] for _, _, fields in records.all] == ["vad"]


def test_waiting_from_before_does_not_excuse_a_stall(sleeper, records, times):
    times[1] = 100 * MS
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    times[1] += 900 * MS  # it waits a good deal, and not in this stretch
    sleeper.wakes(1021)
    looks(made, 1040, 1080)
    sleeper.sleeps(1090)
    looks(made, 1100, 1120)
    ((_, event, fields),) = records.all
    assert (event, fields["waited_for_core_ms"]) == ("stall", 0)


def test_one_that_was_met_late_may_have_begun_with_anything(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    made.look(1054 * MS)  # late, but the process did not stand still
    sleeper.sleeps(1070)
    looks(made, 1074, 1140)
    assert records.all == []


def test_one_that_joins_later_is_watched_as_well(sleeper, records):
    made = Stalls([], dict)
    made.add(sleeper.stage)
    looks(made, 1000, 1020)
    sleeper.wakes(1021)
    looks(made, 1040, 1080)
    sleeper.sleeps(1090)
    made.look(1100 * MS)
    assert [fields["stage"] for _, _, fields in records.all] == ["vad"]


def test_who_watches_tells_of_itself(records):
    mine, state = Awake(), {"depths": {}}

    def turns():
        made = Stalls([], lambda: state)
        made.begin(Stage("watch", threading.current_thread(), lambda: 0, lambda: None, mine))
        for hold_up in (lambda: None, hold_up_for_long, lambda: None):
            mine.wakes()
            made.look(time.monotonic_ns())
            hold_up()
            mine.sleeps()
        made.end()
        return made

    made = Worker(turns, "watch").join()
    ((_, event, fields),) = records.all
    assert (event, fields["stage"]) == ("stall", "watch")
    assert fields["ms"] > LIMIT_MS
    assert "hold_up_for_long" in fields["stack"]
    assert fields["depths"] == {}
    assert stalled(made) == [1]


def hold_up_for_long():
    """Until the alarm has written, which the kernel sees to."""
    until(lambda: stalls.stacks()._ready.poll(0), "the alarm goes off")
    time.sleep(LIMIT_MS / 1e3)


def test_looking_is_often_enough_for_the_limits():
    """Fifty ms: at a look that is up to 5 ms late, less what came before the question."""
    assert PULSE_MS <= 50 - (LOOK_SECONDS * 1e3 + 5)
    assert LIMIT_MS + 5 <= 50
