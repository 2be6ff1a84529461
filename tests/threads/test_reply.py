"""Answers on their way from the words to the ring: bounds, order, and the floor."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reply_rig import LIVE, Rig

from threadline.talking.heard import mark_name
from threadline.threads.calls import END_OF_CLAUSE, END_OF_REPLY, FRAME
from threadline.threads.line import AHEAD_BYTES, AHEAD_CLAUSES
from threadline.threads.messages import (
    CallClosed,
    DigitPressed,
    EndOfSpeech,
    FloorTaken,
    HangUp,
    MarkReturned,
    PlaybackCut,
    Speak,
    StageFailed,
    Transcript,
)
from threadline.threads.reply import end_mark

MUCH = " ".join(f"This is sentence number {number} of many." for number in range(9))


@pytest.fixture
def rig():
    made = Rig().greeted()
    made.brain.answers["much"] = MUCH
    yield made
    made.close()


# -- a turn ----------------------------------------------------------------------------------------


def test_a_caller_is_greeted():
    rig = Rig()
    rig.open()
    assert rig.asked == [Speak(0, LIVE, 0, 1, "Good evening."), EndOfSpeech(0, LIVE, 0, 1)]
    rig.close()


def test_a_transcript_is_answered_in_frames_with_its_ends_marked(rig):
    rig.brain.answers["four"] = "That is a table for four people. On what day would you come?"
    rig.turn("four", epoch=1)
    assert len(rig.texts()) == 2
    first = next(rig.numbers) + 1
    rig.voice(frames=3, tail=2)
    assert rig.played() == [
        (first, 1, 2, 0),
        (first + 1, 1, 2, 0),
        (first + 2, 1, 2, END_OF_CLAUSE),
        (first + 3, 1, 3, 0),
        (first + 4, 1, 3, 0),
        (first + 5, 1, 3, END_OF_CLAUSE),
        (first + 6, 1, 3, 0),
        (first + 7, 1, 3, 0),
        (-1, 1, 3, END_OF_REPLY),
    ]


def test_what_was_not_understood_is_asked_again(rig):
    rig.turn(None, epoch=1)
    assert "Sorry" in rig.texts()[0]


def test_busy_lasts_from_the_words_to_the_last_frame_handed_over(rig):
    busy = rig.call.busy
    rig.take_floor(1)
    assert busy.at == 0
    rig.hear("hello", 1)
    assert busy.at == 1
    rig.voice(frames=150, clauses=1)
    rig.voice()
    assert busy.at == 1  # the ring was full before the end
    rig.played(100)
    rig.step()
    assert busy.at == 0


def test_busy_ends_with_the_floor_and_with_the_call(rig):
    rig.turn("hello", epoch=1)
    rig.take_floor(2)
    assert rig.call.busy.at == 0
    rig.hear("hello", 2)
    assert rig.call.busy.at == 1
    rig.tell(CallClosed, "the caller hung up")
    assert rig.call.busy.at == 0


# -- more than the ring holds ----------------------------------------------------------------------


def test_what_does_not_fit_waits_and_follows_in_order(rig):
    rig.turn("hello", epoch=1)
    first = next(rig.numbers) + 1
    rig.voice(frames=300, tail=40)
    got = []
    for _ in range(40):
        got += rig.played(9)
        rig.step()
    numbers = [number for number, *_ in got]
    assert numbers == [*range(first, first + 340), -1]
    marked = [number for number, _, _, flags in got if flags & END_OF_CLAUSE]
    assert marked == [first + 299]
    assert rig.call.outgoing.refused == 0


@pytest.mark.parametrize("room", [0, 1])
def test_an_end_that_does_not_fit_follows_too(rig, room):
    rig.turn("hello", epoch=1)
    rig.voice(frames=rig.call.outgoing.capacity - room, tail=0)
    assert len(rig.played(2)) == 2
    rig.step()
    assert [flags for *_, flags in rig.played()][-2:] == [END_OF_CLAUSE, END_OF_REPLY]
    assert rig.call.outgoing.refused == 0


def test_the_voice_is_asked_two_clauses_ahead(rig):
    rig.turn("much", epoch=1)
    assert len(rig.texts()) == AHEAD_CLAUSES
    rig.voice(clauses=1)
    assert len(rig.texts()) == AHEAD_CLAUSES + 1
    assert not any(isinstance(order, EndOfSpeech) for order in rig.asked)
    rig.voice()
    assert isinstance(rig.asked[-1], EndOfSpeech)


def test_the_voice_is_asked_for_no_more_while_eight_seconds_wait(rig):
    rig.turn("much", epoch=1)
    ahead = AHEAD_BYTES // FRAME
    rig.voice(frames=ahead + rig.call.outgoing.capacity + 100, clauses=1)
    rig.voice(frames=1, clauses=9)
    assert len(rig.texts()) == 2
    rig.played(100)
    rig.step()
    assert len(rig.texts()) == 2
    rig.played(2)  # less than eight seconds from here on, though much still waits
    rig.step()
    assert len(rig.texts()) == 4


# -- the floor -------------------------------------------------------------------------------------


def test_taking_the_floor_clears_all_that_was_pending(rig):
    rig.turn("much", epoch=1)
    rig.voice(frames=200, clauses=2)
    rig.played()
    rig.take_floor(2)
    rig.asked.clear()
    rig.step()
    assert rig.played() == []
    rig.hear("stop", 2)
    assert rig.texts() == ["You said much stop."]  # nothing is known to have been heard
    assert all(order.epoch == 2 for order in rig.asked)
    rig.waiting = rig.asked[:]
    rig.voice()
    assert {epoch for _, epoch, _, _ in rig.played()} == {2}


def test_speech_of_an_older_epoch_is_ignored(rig):
    rig.turn("one", epoch=1)
    rig.take_floor(2)
    rig.hear("two", 2)
    rig.spoken(1, 2, 50)
    rig.spoken(1, 2, 50, ended=True)
    assert rig.played() == []
    assert rig.call.busy.at == 1


def test_words_that_overtake_the_news_of_the_floor_are_answered_all_the_same(rig):
    """The two come from two threads: reply may be late enough to find both at once."""
    rig.call.epoch.at = 1
    rig.hear("hello", 1)
    assert rig.texts() == ["You said hello."]
    rig.tell(FloorTaken, 1, rig.clock.now)
    rig.voice()
    assert [flags for *_, flags in rig.played()][-1] == END_OF_REPLY
    assert rig.stage.stats.turns == 1


def test_old_news_of_the_floor_take_nothing(rig):
    rig.turn("one", epoch=5)
    rig.tell(FloorTaken, 4, 0)
    rig.voice()
    assert {epoch for _, epoch, _, _ in rig.played()} == {5}


def test_what_was_cut_off_is_told_to_the_conversation(rig):
    """The caller made a sound without words: the agent says again what he did not hear."""
    rig.brain.answers["four"] = "That is a table for four people. On what day would you come?"
    rig.turn("four", epoch=1)
    rig.voice(frames=50)
    rig.take_floor(2)
    rig.tell(PlaybackCut, 1, 3, 100)  # of the second clause
    rig.asked.clear()
    rig.hear("", 2)
    assert rig.texts() == ["On what day would you come?"]


@pytest.mark.parametrize("mark", [mark_name(1, 2), end_mark(1)])
def test_what_was_heard_is_told_to_the_conversation(rig, mark):
    rig.turn("one", epoch=1)
    rig.voice(frames=50)
    rig.tell(MarkReturned, mark)
    rig.take_floor(2)
    rig.tell(PlaybackCut, 1, 2, 100)
    rig.hear("", 2)
    assert rig.texts()[1:] == ["Sorry, go on."]


def test_a_clause_that_cannot_be_spoken_is_replaced(rig):
    rig.turn("one", epoch=1)
    rig.spoken(1, 2, 0, reason="the voice is hoarse")
    assert "Sorry, something went wrong" in rig.texts()[1]


def test_events_of_another_caller_are_ignored(rig):
    rig.tell(Transcript, 0, "hello", 1, 1, 1, 1, 1, generation=LIVE - 2)
    rig.tell(FloorTaken, 9, 1, generation=LIVE + 2)
    rig.tell(StageFailed, "asr", generation=LIVE - 2)
    assert rig.asked == []
    assert rig.stage.apologies == 0


def test_a_key_is_no_defect(rig):
    rig.tell(DigitPressed, "5")


def test_an_event_without_a_use_is_a_defect(rig):
    with pytest.raises(TypeError, match="no use for"):
        rig.tell(HangUp, "who?")
    assert rig.stage.on_call is rig.call


class AnyTalk(RuleBasedStateMachine):
    """Any order of words, floors, speech and playing: bounds, and frames of one epoch in order."""

    @initialize()
    def begin(self):
        self.rig = Rig()
        self.rig.brain.answers["much"] = MUCH
        self.rig.open()
        self.epoch = 0
        self.last = -1

    @rule(text=st.sampled_from(["much", "hello", "", None]))
    def turn(self, text):
        self.epoch += 1
        self.rig.turn(text, self.epoch)

    @rule()
    def floor(self):
        self.epoch += 1
        self.rig.take_floor(self.epoch)

    @rule(frames=st.integers(0, 300), clauses=st.integers(1, 3))
    def speak(self, frames, clauses):
        self.rig.voice(frames=frames, clauses=clauses)

    @rule(most=st.integers(1, 128))
    def play(self, most):
        for number, epoch, _, _ in self.rig.played(most):
            if epoch == self.epoch and number >= 0:
                assert number > self.last
                self.last = number
        self.rig.step()

    @invariant()
    def nothing_runs_far_ahead(self):
        if not hasattr(self, "rig"):
            return
        for line in self.rig.stage._lines.values():
            assert 0 <= line.with_voice <= AHEAD_CLAUSES
            waiting = sum(len(one.audio) - one.at for one in line.queue)
            assert line.buffered == waiting
            assert waiting < AHEAD_BYTES + 3 * 300 * FRAME
            assert all(one.epoch == self.epoch for one in line.queue)

    def teardown(self):
        """Left alone, every answer comes to its end."""
        for _ in range(60):
            self.rig.voice(frames=20)
            self.rig.played()
            self.rig.step()
        assert self.rig.call.busy.at == 0
        assert not any(line.queue or line.owed for line in self.rig.stage._lines.values())
        self.rig.close()


TestAnyTalk = AnyTalk.TestCase
TestAnyTalk.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
