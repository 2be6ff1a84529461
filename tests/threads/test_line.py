"""Clauses on their way from the voices to the ring: order, the chain of voices, and guards."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reply_rig import LIVE, MS, Rig

from threadline.threads.calls import END_OF_CLAUSE, END_OF_REPLY
from threadline.threads.jobs import UNGUARDED
from threadline.threads.line import AHEAD_CLAUSES, TAIL_CAP_NS
from threadline.threads.messages import (
    CancelSpeech,
    EndOfSpeech,
    JobDone,
    MarkReturned,
    Speak,
)
from threadline.threads.reply import end_mark

SECOND = 1000 * MS
THREE = "That is the first one of three. Here you have the second. And now the third."
FIRST, SECOND_, THIRD = 2, 3, 4  # their numbers: 1 was the greeting


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(**options):
        rig = Rig(**options)
        made.append(rig)
        monkeypatch.setattr("threadline.threads.reply.time", rig.clock)
        rig.open()
        for job in rig.jobs:
            rig.tell(JobDone, job.job, job.arguments)
        rig.jobs.clear()
        rig.voice()
        rig.played()
        rig.tell(MarkReturned, end_mark(0))
        rig.asked.clear()
        for told in rig.told:
            told.clear()
        rig.brain.answers["three"] = THREE
        return rig

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def two(make):
    """Two voices, and the caller asked for three clauses."""
    rig = make(voices=("cartesia", "piper"))
    rig.turn("three", epoch=1)
    return rig


def names(orders):
    return [(type(order).__name__, getattr(order, "clause", None)) for order in orders]


def clauses(rig):
    """The clause of each frame that was played."""
    return [clause for number, _, clause, _ in rig.played() if number >= 0]


# -- pieces ----------------------------------------------------------------------------------------


def test_a_clause_comes_in_pieces_and_its_mark_goes_with_the_last_frame(make):
    rig = make()
    rig.turn("one", epoch=1)
    rig.spoken(1, FIRST, 3, done=False)
    assert [flags for *_, flags in rig.played()] == [0, 0]  # the third may be the last
    rig.spoken(1, FIRST, 2, done=False)
    assert [flags for *_, flags in rig.played()] == [0, 0]
    rig.spoken(1, FIRST, 0, done=True)
    assert [flags for *_, flags in rig.played()] == [END_OF_CLAUSE]
    rig.spoken(1, FIRST, 2, ended=True)
    assert [flags for *_, flags in rig.played()] == [0, 0, END_OF_REPLY]


def test_a_later_clause_that_is_ready_waits_for_the_one_before(make):
    rig = make()
    rig.turn("three", epoch=1)
    rig.spoken(1, SECOND_, 2)
    assert rig.played() == []
    rig.spoken(1, FIRST, 1, done=False)
    rig.spoken(1, FIRST, 1)
    assert clauses(rig) == [FIRST, FIRST, SECOND_, SECOND_]


def test_a_tail_that_never_comes_is_not_waited_for(make):
    rig = make()
    rig.turn("one", epoch=1)
    rig.spoken(1, FIRST, 1)
    assert [flags for *_, flags in rig.played()] == [END_OF_CLAUSE]
    rig.clock.now += TAIL_CAP_NS
    rig.step()
    assert [flags for *_, flags in rig.played()] == [END_OF_REPLY]
    assert rig.call.busy.at == 0
    rig.spoken(1, FIRST, 1, ended=True)
    assert rig.played() == []


# -- the chain of voices ---------------------------------------------------------------------------


def test_a_clause_of_which_no_audio_came_goes_to_the_next_voice_and_the_rest_with_it(two):
    cartesia, piper = two.told
    assert names(cartesia) == [("Speak", FIRST), ("Speak", SECOND_)]
    two.spoken(1, FIRST, 3)
    two.spoken(1, SECOND_, 0, reason="the line is dead")
    assert names(piper) == [("Speak", SECOND_)]
    two.spoken(1, THIRD, 0, reason="the line is dead")  # it had been asked for already
    assert names(piper) == [("Speak", SECOND_), ("Speak", THIRD), ("EndOfSpeech", THIRD)]
    assert names(cartesia)[2:] == [("Speak", THIRD), ("CancelSpeech", None)]
    two.spoken(1, SECOND_, 2)
    two.spoken(1, THIRD, 1)
    two.spoken(1, THIRD, 1, ended=True)
    assert clauses(two) == [FIRST] * 3 + [SECOND_] * 2 + [THIRD] * 2
    assert two.stage._voices.failed == [2, 0]
    assert not any("something went wrong" in order.text for order in piper[:2])


def test_the_voice_never_changes_back_within_an_answer(two):
    """What the first voice had ready beyond the failed clause is asked of the second again."""
    cartesia, piper = two.told
    two.spoken(1, SECOND_, 7, done=False)
    two.spoken(1, FIRST, 0, reason="the line is dead")
    two.spoken(1, SECOND_, 7)  # unwanted, but it ends the first voice's work on it
    assert names(piper)[:2] == [("Speak", FIRST), ("Speak", SECOND_)]
    assert names(cartesia)[-1] == ("CancelSpeech", None)
    assert ("Speak", THIRD) not in names(cartesia)
    two.spoken(1, FIRST, 1)
    two.spoken(1, SECOND_, 2)
    assert clauses(two) == [FIRST, SECOND_, SECOND_]


def test_the_next_answer_is_asked_of_the_first_voice_again(two):
    two.spoken(1, FIRST, 0, reason="the line is dead")
    two.turn("hello", epoch=2)
    assert isinstance(two.told[0][-1], Speak)
    assert two.told[0][-1].epoch == 2
    assert two.told[1][-1] == CancelSpeech(0, LIVE, 1)


def test_a_half_spoken_clause_is_kept_and_never_repeated(two):
    _, piper = two.told
    two.spoken(1, FIRST, 3, done=False)
    two.spoken(1, FIRST, 1, reason="the line is dead")
    two.spoken(1, SECOND_, 2)
    two.spoken(1, THIRD, 1)
    assert piper == []
    frames = two.played()
    assert [clause for _, _, clause, _ in frames] == [FIRST] * 4 + [SECOND_] * 2 + [THIRD]
    assert frames[3][3] == END_OF_CLAUSE


def test_when_no_voice_is_left_the_clause_is_given_up(two):
    two.spoken(1, FIRST, 0, reason="the line is dead")
    two.spoken(1, FIRST, 0, reason="and so is this one")
    two.spoken(1, SECOND_, 0, reason="the line is dead")
    two.spoken(1, SECOND_, 1)
    assert clauses(two) == [SECOND_]
    assert two.stage._voices.failed == [2, 1]


def test_an_answer_that_no_voice_speaks_is_excused(two):
    two.turn("hello", epoch=2)
    hello = two.told[0][-1].clause
    two.spoken(2, hello, 0, reason="the line is dead")
    two.spoken(2, hello, 0, reason="and so is this one")
    assert "Sorry, something went wrong" in two.texts()[-1]


def test_only_the_voice_that_speaks_last_is_told_of_the_end(two):
    """Until the last clause sounds it may still go to the other voice."""
    cartesia, piper = two.told
    two.spoken(1, FIRST, 1)
    two.spoken(1, SECOND_, 1)
    assert names(cartesia)[-1] == ("Speak", THIRD)
    two.spoken(1, THIRD, 1, done=False)
    assert names(cartesia)[-1] == ("EndOfSpeech", THIRD)
    assert piper == []
    two.spoken(1, THIRD, 1)
    two.spoken(1, THIRD, 0, ended=True)
    assert two.played()[-1][3] == END_OF_REPLY


def test_the_voices_in_use_are_told_that_the_caller_has_the_floor(two):
    cartesia, piper = two.told
    two.spoken(1, FIRST, 0, reason="the line is dead")
    two.take_floor(2)
    assert cartesia[-1] == CancelSpeech(0, LIVE, 1)
    assert piper[-1] == CancelSpeech(0, LIVE, 1)
    two.take_floor(3)
    assert len(cartesia) == 3  # two clauses, one cancel
    assert len(piper) == 2


def test_a_voice_that_owes_nothing_is_not_told(make):
    rig = make()
    rig.turn("one", epoch=1)
    rig.voice()
    rig.take_floor(2)
    assert [type(order) for order in rig.told[0]] == [Speak, EndOfSpeech]


def test_a_voice_that_owes_only_the_end_is_told(make):
    rig = make()
    rig.turn("one", epoch=1)
    rig.spoken(1, FIRST, 1)
    assert names(rig.told[0]) == [("Speak", FIRST), ("EndOfSpeech", FIRST)]
    rig.take_floor(2)
    assert rig.told[0][-1] == CancelSpeech(0, LIVE, 1)


def test_a_clause_goes_to_the_voice_that_its_answer_has_reached(make):
    rig = make(voices=("a", "b", "c"))
    rig.turn("three", epoch=1)
    rig.spoken(1, FIRST, 0, reason="a is dead")
    rig.spoken(1, FIRST, 0, reason="b is dead")
    rig.spoken(1, SECOND_, 0, reason="a is dead")
    assert names(rig.told[1]) == [("Speak", FIRST), ("CancelSpeech", None)]
    assert names(rig.told[2])[:2] == [("Speak", FIRST), ("Speak", SECOND_)]


# -- guards ----------------------------------------------------------------------------------------


@pytest.fixture
def guarded(make):
    rig = make(workers=3, guarded=True)
    rig.turn("three", epoch=1)
    return rig


def judge(rig, job, result=None, **fields):
    rig.jobs.remove(job)
    rig.to_reply.put(
        JobDone(0, LIVE, job.job, job.arguments if result is None else result, **fields)
    )
    rig.step()


def test_a_clause_is_judged_beside_its_synthesis_and_heard_after_both(guarded):
    first, second = guarded.jobs  # one worker is left to other calls
    assert (first.name, first.arguments) == ("", "That is the first one of three.")
    assert len(guarded.texts()) == AHEAD_CLAUSES
    guarded.voice(frames=2, clauses=2)
    assert guarded.played() == []
    judge(guarded, second)
    assert guarded.played() == []
    judge(guarded, first)
    assert clauses(guarded) == [FIRST] * 2 + [SECOND_] * 2


def test_without_guards_there_is_no_gate(make):
    rig = make(workers=2)
    rig.turn("one", epoch=1)
    rig.voice()
    assert rig.jobs == []
    assert clauses(rig)[:1] == [FIRST]


def test_a_replaced_clause_is_heard_in_other_words_and_what_followed_after_it(guarded):
    guarded.voice(frames=2, clauses=2)
    first, second, *_ = guarded.jobs
    judge(guarded, first)
    judge(guarded, second, "Here you have nothing.")
    assert clauses(guarded) == [FIRST] * 2
    assert guarded.texts()[-2:] == ["Here you have nothing.", "And now the third."]
    assert guarded.jobs
    assert "Here you have nothing." not in [job.arguments for job in guarded.jobs]
    while guarded.jobs:
        judge(guarded, guarded.jobs[0])
    guarded.voice(frames=1)
    heard = clauses(guarded)
    assert SECOND_ not in heard
    assert len(heard) == 3  # the two and the tail
    assert guarded.call.busy.at == 0


def test_nothing_of_a_stopped_answer_is_heard(guarded):
    guarded.voice(frames=2, clauses=2)
    first, second, *_ = guarded.jobs
    judge(guarded, second, "I cannot say that.", stop=True)
    judge(guarded, first)
    while guarded.jobs:
        judge(guarded, guarded.jobs[0])
    guarded.voice(frames=1)
    heard = clauses(guarded)
    assert heard[:2] == [FIRST] * 2
    assert not {SECOND_, THIRD} & set(heard)
    assert guarded.texts()[-1] == "I cannot say that."
    assert guarded.call.busy.at == 0


def test_no_sound_of_a_stopped_clause_hangs_over_into_what_is_said_instead(guarded):
    """The voice begins anew: its resampler still holds the end of what nobody may hear."""
    guarded.voice(frames=2, clauses=2)
    (told,) = guarded.told
    judge(guarded, guarded.jobs[1], "I cannot say that.", stop=True)
    assert names(told)[2:] == [
        ("Speak", THIRD),
        ("EndOfSpeech", THIRD),
        ("CancelSpeech", None),
        ("Speak", THIRD + 1),
        ("EndOfSpeech", THIRD + 1),
    ]


def test_guards_of_clauses_that_were_dropped_are_not_waited_for(guarded):
    judge(guarded, guarded.jobs[0], "I cannot say that.", stop=True)
    guarded.clock.now += 5 * SECOND
    guarded.step()
    assert guarded.stage._jobs.unguarded == 0
    assert guarded.texts().count(UNGUARDED) == 0
    while guarded.jobs:
        judge(guarded, guarded.jobs[0])
    assert not guarded.stage._jobs._crew._held


def test_what_is_said_instead_is_said_by_the_same_voice(make):
    rig = make(voices=("cartesia", "piper"), workers=3, guarded=True)
    rig.turn("three", epoch=1)
    rig.spoken(1, FIRST, 0, reason="the line is dead")
    rig.spoken(1, SECOND_, 0, reason="the line is dead")
    judge(rig, rig.jobs[1], "I cannot say that.", stop=True)
    rig.spoken(1, FIRST, 1)
    assert ("Speak", THIRD + 1) not in names(rig.told[0])
    assert ("Speak", THIRD + 1) in names(rig.told[1])


@pytest.mark.parametrize("late", [False, True])
def test_a_clause_that_no_guard_has_judged_is_never_heard(guarded, late):
    guarded.voice(frames=2, clauses=2)
    first, *_ = guarded.jobs
    if late:
        guarded.clock.now += 2 * SECOND
        guarded.step()
        judge(guarded, first)  # too late
    else:
        judge(guarded, first, "", error="the guard failed.")
    guarded.jobs.clear()
    guarded.voice(frames=1)
    assert not {FIRST, SECOND_, THIRD} & set(clauses(guarded))
    assert guarded.texts()[-1] == UNGUARDED
    assert guarded.stage._jobs.unguarded >= 1


def test_a_caller_whose_guard_is_slow_delays_nobody_and_gives_up_with_the_floor(guarded):
    (first, second) = guarded.jobs
    guarded.voice(frames=2, clauses=2)
    guarded.take_floor(2)
    judge(guarded, first)
    judge(guarded, second)
    guarded.clock.now += 5 * SECOND
    guarded.step()
    assert guarded.played() == []
    assert guarded.stage._jobs.unguarded == 0


# -- anything, in any order ------------------------------------------------------------------------


class AnyVoices(RuleBasedStateMachine):
    """Two voices that fail or break off, and guards that pass, replace or stop."""

    @initialize()
    def begin(self):
        self.rig = Rig(voices=("cartesia", "piper"), workers=3, guarded=True)
        self.rig.brain.answers["three"] = THREE
        self.rig.open()
        self.epoch = 0
        self.heard = []  # numbers of frames
        self.marked = set()  # clauses whose end was played
        self.last = 0  # the clause that was played last

    @rule(text=st.sampled_from(["three", "hello", ""]))
    def turn(self, text):
        self.epoch += 1
        self.heard.clear()
        self.marked.clear()
        self.rig.turn(text, self.epoch)

    @rule(pick=st.integers(0, 3), frames=st.integers(0, 40),
          how=st.sampled_from(["piece", "all", "all", "fail"]))  # fmt: skip
    def speak(self, pick, frames, how):
        waiting = [one for one in self.rig.waiting if one.epoch == self.epoch]
        if not waiting:
            return
        order = waiting[0 if pick < 3 else -1]
        if isinstance(order, EndOfSpeech):
            self.rig.waiting.remove(order)
            self.rig.spoken(order.epoch, order.clause, 1, ended=True)
            return
        if how == "piece":
            self.rig.spoken(order.epoch, order.clause, frames, done=False)
            return
        self.rig.waiting.remove(order)
        reason = "hoarse" if how == "fail" else ""
        self.rig.spoken(order.epoch, order.clause, 0 if reason else frames, reason=reason)

    @rule(pick=st.integers(0, 5), verdict=st.sampled_from(["pass", "pass", "replace", "stop"]))
    def judge(self, pick, verdict):
        if not self.rig.jobs:
            return
        job = self.rig.jobs[pick % len(self.rig.jobs)]
        if verdict == "pass":
            judge(self.rig, job)
        else:
            judge(self.rig, job, f"instead of {job.job}", stop=verdict == "stop")

    @rule(most=st.integers(1, 128))
    def play(self, most):
        for number, epoch, clause, flags in self.rig.played(most):
            if epoch != self.epoch or number < 0:
                continue
            assert number not in self.heard
            assert clause >= self.last
            assert clause not in self.marked or not flags & END_OF_CLAUSE
            self.heard.append(number)
            self.last = clause
            if flags & END_OF_CLAUSE:
                self.marked.add(clause)
        self.rig.step()

    @invariant()
    def nothing_unjudged_is_in_the_ring(self):
        if not hasattr(self, "rig"):
            return
        for line in self.rig.stage._lines.values():
            assert line.with_voice <= AHEAD_CLAUSES + len(line.jobs) + 2
            assert line.buffered == sum(len(one.audio) - one.at for one in line.queue)
            for one in line.queue:
                assert one.epoch == self.epoch
                if getattr(one, "guard", 0):
                    assert one.at == 0
            numbers = [one.number for one in line.queue]
            assert numbers == sorted(numbers)

    def teardown(self):
        """Left alone, everything comes to its end."""
        for _ in range(200):
            while self.rig.jobs:
                judge(self.rig, self.rig.jobs[0])
            self.rig.voice(frames=3)
            self.rig.played()
            self.rig.step()
        (line,) = self.rig.stage._lines.values()
        assert not line.queue
        assert not [one for one in line.owed if one.epoch == self.epoch]
        assert self.rig.call.busy.at == 0
        self.rig.close()


TestAnyVoices = AnyVoices.TestCase
TestAnyVoices.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
