"""The pacer tick by tick, in one thread: its own loop without its timer."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from threadline.config import Pacer as PacerConfig
from threadline.threads.calls import END_OF_CLAUSE, END_OF_REPLY, FRAME, Call
from threadline.threads.pacer import TICK_NS, Pacer

LIVE = 7


def call(slot=0, generation=LIVE):
    made = Call(slot)
    made.generation.at = generation
    return made


def pacer(*calls, prebuffer_ms=20, subticks=1, wakes=None):
    wakes = [] if wakes is None else wakes
    return Pacer(
        calls, PacerConfig(prebuffer_ms=prebuffer_ms, subticks=subticks), [lambda: wakes.append(1)]
    )


def payload(number):
    return number.to_bytes(2, "big") * (FRAME // 2)


def say(line, numbers, epoch=0, generation=LIVE, clause=1, flags=0):
    """reply's part: frames that bear their number."""
    for number in numbers:
        assert line.outgoing.push(generation, epoch, clause, flags, 0, payload(number))


def end(line, epoch=0, generation=LIVE, clause=1):
    assert line.outgoing.push(generation, epoch, clause, END_OF_REPLY, 0, b"")


def take(line):
    """io-calls' part: the numbers of all frames that are due; "end" for the end of a reply."""
    taken = []
    while (record := line.due.pop()) is not None:
        generation, epoch, _, flags, _, audio = record
        assert (generation, epoch) == (line.generation.at, line.epoch.at)
        taken.append("end" if flags & END_OF_REPLY else int.from_bytes(audio[:2], "big"))
        if audio:
            assert audio == payload(taken[-1])
    return taken


def ticks(stage, line, count):
    """Whole ticks of one call, each as what it released."""
    released = []
    for _ in range(count):
        stage.advance(stage._subticks)
        released.append(take(line))
    return released


# -- one frame, in order, on its own instant -----------------------------------------------------


def test_each_tick_releases_the_next_frame_and_no_more():
    line = call()
    stage = pacer(line)
    say(line, range(5))
    assert ticks(stage, line, 6) == [[0], [1], [2], [3], [4], []]
    assert stage.frames == 5


def test_a_record_arrives_whole_and_bears_its_deadline():
    line = call()
    stage = pacer(line)
    line.epoch.at = 3
    assert line.outgoing.push(LIVE, 3, 12, END_OF_CLAUSE, 999, payload(1))
    assert line.outgoing.push(LIVE, 3, 12, 0, 999, payload(2))
    stage.advance(1)
    stage.advance(1)
    first, second = line.due.pop(), line.due.pop()
    assert first[:4] == (LIVE, 3, 12, END_OF_CLAUSE)
    assert first[5] == payload(1)
    assert second[4] - first[4] == TICK_NS


def test_calls_are_spread_over_the_subticks():
    calls = [call(slot) for slot in range(6)]
    stage = pacer(*calls, subticks=4)
    for line in calls:
        say(line, range(3))
    turns = []
    for _ in range(8):
        stage.advance(1)
        turns.append([line.slot for line in calls if take(line)])
    assert turns == [[0, 4], [1, 5], [2], [3]] * 2


def test_io_is_woken_once_for_all_calls_and_only_for_frames():
    wakes = []
    calls = [call(slot) for slot in range(3)]
    stage = pacer(*calls, wakes=wakes)
    stage.advance(1)
    assert not wakes
    for line in calls:
        say(line, range(1))
    stage.advance(1)
    assert len(wakes) == 1


def test_of_several_io_calls_those_with_a_frame_to_send_are_woken_once():
    calls = [call(slot) for slot in range(6)]
    wakes = []
    stage = Pacer(
        calls,
        PacerConfig(prebuffer_ms=20, subticks=4),
        [lambda: wakes.append(0), lambda: wakes.append(1)],
    )
    for line in (calls[0], calls[1], calls[3], calls[4]):
        say(line, range(2))
    turns = []
    for _ in range(4):
        wakes.clear()
        stage.advance(1)
        turns.append(([line.slot for line in calls if take(line)], list(wakes)))
    assert turns == [([0, 4], [0]), ([1], [1]), ([], []), ([3], [1])]
    wakes.clear()
    stage.advance(4)  # late: all of it at once
    assert sorted(line.slot for line in calls if take(line)) == [0, 1, 3, 4]
    assert wakes == [0, 1]


@given(
    missed=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    slots=st.integers(1, 9),
    subticks=st.integers(1, 8),
)
@settings(deadline=None)
def test_missed_ticks_never_come_in_a_burst(missed, slots, subticks):
    calls = [call(slot) for slot in range(slots)]
    stage = pacer(*calls, subticks=subticks)
    for line in calls:
        say(line, range(100))
    sent = [0] * slots
    passed = 0
    for expired in missed:
        stage.advance(expired)
        for line in calls:
            turn = line.slot % subticks
            due = sum(tick % subticks == turn for tick in range(passed, passed + expired))
            frames = take(line)
            assert frames == [sent[line.slot]] * min(due, 1)
            sent[line.slot] += len(frames)
        passed += expired
    assert stage.gaps == sum(max(0, expired - subticks) for expired in missed)


def test_the_schedule_stays_where_it_was_after_a_gap():
    line = call()
    stage = pacer(line, subticks=4)
    say(line, range(9))
    stage.advance(1)
    stage.advance(50)
    stage.advance(2)
    stamps = []
    while (record := line.due.pop()) is not None:
        stamps.append(record[4])
    assert len(stamps) == 3
    assert [stamp % TICK_NS for stamp in stamps] == [0, 0, 0]
    assert stamps[1] // TICK_NS == 12  # the latest tick of the fifty, not the first
    assert stamps[2] // TICK_NS == 13


# -- the floor -----------------------------------------------------------------------------------


def test_a_hold_releases_nothing_and_the_very_next_frame_afterwards():
    line = call()
    stage = pacer(line)
    say(line, range(6))
    assert ticks(stage, line, 2) == [[0], [1]]
    line.hold.at = 1
    assert ticks(stage, line, 20) == [[]] * 20
    assert line.playing.at == 1
    assert stage.underruns == stage.starved == 0
    line.hold.at = 0
    assert ticks(stage, line, 4) == [[2], [3], [4], [5]]


def test_an_answer_that_arrives_during_a_hold_waits_for_it():
    line = call()
    stage = pacer(line, prebuffer_ms=40)
    line.hold.at = 1
    say(line, range(3))
    assert ticks(stage, line, 5) == [[]] * 5
    assert line.playing.at == 0
    line.hold.at = 0
    assert ticks(stage, line, 2) == [[0], [1]]


def test_a_hold_with_an_empty_ring_is_no_underrun():
    line = call()
    stage = pacer(line)
    say(line, [0])
    ticks(stage, line, 1)
    line.hold.at = 1
    ticks(stage, line, 5)
    assert stage.underruns == stage.starved == 0


@pytest.mark.parametrize("held", [0, 1])
def test_a_risen_epoch_drops_every_older_frame_and_no_newer_one(held):
    line = call()
    stage = pacer(line)
    say(line, range(10))
    end(line)
    assert ticks(stage, line, 1) == [[0]]
    line.epoch.at, line.hold.at = 1, held
    assert ticks(stage, line, 1) == [[]]
    assert (stage.stale, line.playing.at) == (10, 0)
    line.hold.at = 0
    say(line, range(20, 23), epoch=1)
    end(line, epoch=1)
    assert ticks(stage, line, 4) == [[20], [21], [22], ["end"]]
    assert stage.underruns == 0


def test_old_and_new_frames_in_one_ring_are_told_apart():
    line = call()
    stage = pacer(line)
    say(line, range(4), epoch=0)
    say(line, range(10, 12), epoch=1)
    line.epoch.at = 1
    assert ticks(stage, line, 2) == [[10], [11]]
    assert stage.stale == 4


def test_another_caller_hears_nothing_of_the_one_before():
    line = call()
    stage = pacer(line)
    say(line, range(5))
    ticks(stage, line, 2)
    line.generation.at = LIVE + 2
    say(line, range(50, 52), generation=LIVE + 2)
    assert ticks(stage, line, 2) == [[50], [51]]
    assert stage.stale == 3


def test_the_underruns_of_a_call_are_its_own():
    line = call()
    stage = pacer(line)
    say(line, [0])
    ticks(stage, line, 2)
    assert stage.lines[0].underruns == 1
    line.generation.at += 2
    ticks(stage, line, 1)
    assert (stage.lines[0].underruns, stage.underruns) == (0, 1)


def test_nothing_is_released_to_a_call_that_is_over():
    line = call()
    stage = pacer(line)
    say(line, range(5))
    ticks(stage, line, 1)
    line.generation.at += 1
    say(line, range(5), generation=LIVE + 1)
    assert ticks(stage, line, 5) == [[]] * 5
    assert line.playing.at == 0


# -- the prebuffer -------------------------------------------------------------------------------


def test_an_answer_starts_when_its_prebuffer_is_there():
    line = call()
    stage = pacer(line, prebuffer_ms=60)
    say(line, [0])
    assert ticks(stage, line, 1) == [[]]
    say(line, [1])
    assert ticks(stage, line, 1) == [[]]
    assert line.playing.at == 0
    say(line, [2])
    assert ticks(stage, line, 1) == [[0]]
    assert line.playing.at == 1


def test_frames_that_come_while_it_waits_are_noticed_at_once():
    line = call()
    stage = pacer(line, prebuffer_ms=100)
    say(line, [0])
    assert ticks(stage, line, 1) == [[]]
    say(line, range(1, 9))
    assert ticks(stage, line, 1) == [[0]]


@pytest.mark.parametrize("prebuffer", [1, 2, 5])
def test_an_answer_of_one_frame_waits_no_longer_than_its_prebuffer(prebuffer):
    line = call()
    stage = pacer(line, prebuffer_ms=20 * prebuffer)
    say(line, [0])
    wait = prebuffer if prebuffer > 1 else 0
    assert ticks(stage, line, wait + 1) == [[]] * wait + [[0]]


def test_each_answer_is_buffered_anew():
    line = call()
    stage = pacer(line, prebuffer_ms=60)
    for _ in range(2):
        say(line, [0])
        assert ticks(stage, line, 2) == [[], []]
        say(line, [1])
        end(line)
        assert ticks(stage, line, 3) == [[0], [1], ["end"]]


# -- the end of an answer ------------------------------------------------------------------------


def test_the_end_is_passed_on_and_silence_after_it_is_no_underrun():
    line = call()
    stage = pacer(line)
    say(line, [0])
    end(line)
    assert ticks(stage, line, 1) == [[0]]
    assert line.playing.at == 1
    assert ticks(stage, line, 5) == [["end"], [], [], [], []]
    assert line.playing.at == 0
    assert stage.underruns == stage.starved == 0


def test_an_answer_that_runs_dry_is_one_underrun_and_its_length_is_counted():
    line = call()
    stage = pacer(line, prebuffer_ms=40)
    say(line, range(2))
    ticks(stage, line, 5)
    assert (stage.underruns, stage.starved, line.playing.at) == (1, 3, 1)
    say(line, [2])  # no second prebuffer inside an answer
    assert ticks(stage, line, 3) == [[2], [], []]
    assert (stage.underruns, stage.starved) == (2, 5)


def test_a_frame_that_io_has_no_room_for_stays_where_it_is():
    line = call()
    stage = pacer(line)
    room = line.due.capacity
    say(line, range(room + 2))
    end(line)
    for _ in range(room + 3):
        stage.advance(1)
    assert stage.blocked == 3
    assert take(line) == list(range(room))
    assert ticks(stage, line, 3) == [[room], [room + 1], ["end"]]


def test_an_end_that_io_has_no_room_for_ends_nothing_yet():
    line = call()
    stage = pacer(line)
    room = line.due.capacity
    say(line, range(room))
    end(line)
    for _ in range(room + 2):
        stage.advance(1)
    assert line.playing.at == 1
    take(line)
    assert ticks(stage, line, 1) == [["end"]]
    assert line.playing.at == 0


# -- whatever happens, in whatever order ---------------------------------------------------------


class AnyCall(RuleBasedStateMachine):
    """A deque of what reply said, against what comes out."""

    @initialize(prebuffer=st.integers(1, 6), subticks=st.integers(1, 4))
    def begin(self, prebuffer, subticks):
        self.call = call()
        self.stage = pacer(self.call, prebuffer_ms=20 * prebuffer, subticks=subticks)
        self.said = deque()
        self.number = 0

    @precondition(lambda self: self.call.outgoing.room() > 12)
    @rule(count=st.integers(1, 10), ends=st.booleans())
    def answer(self, count, ends):
        epoch, generation = self.call.epoch.at, self.call.generation.at
        for _ in range(count):
            say(self.call, [self.number], epoch, generation)
            self.said.append(self.number)
            self.number += 1
        if ends:
            end(self.call, epoch, generation)
            self.said.append("end")

    @rule(held=st.booleans())
    def hold(self, held):
        self.call.hold.at = int(held)

    @rule()
    def take_floor(self):
        self.call.epoch.at += 1
        self.said.clear()

    @rule()
    def next_caller(self):
        self.call.generation.at += 2
        self.said.clear()

    @rule(missed=st.integers(1, 50))
    def tick(self, missed):
        self.stage.advance(missed)
        taken = take(self.call)
        assert len(taken) <= (0 if self.call.hold.at else 1)
        for number in taken:
            assert number == self.said.popleft()

    def teardown(self):
        """With the floor free, all that was said and not taken back comes out in the end."""
        self.call.hold.at = 0
        came = []
        for _ in range(8 * len(self.said)):  # each of many short answers waits for its prebuffer
            came += [item for tick in ticks(self.stage, self.call, 1) for item in tick]
        assert came == list(self.said)


TestAnyCall = AnyCall.TestCase
TestAnyCall.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
