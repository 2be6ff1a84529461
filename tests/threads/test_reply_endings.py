"""The reply stage where things end, are written down, or are asked of a model elsewhere."""

import pytest
from reply_rig import APOLOGY_FRAMES, LIVE, MS, Rig

from threadline.dialog.brain import RemoteBrain
from threadline.observe.turns import STAGES
from threadline.threads.calls import END_OF_REPLY, FRAME
from threadline.threads.line import AHEAD_BYTES
from threadline.threads.messages import (
    AskModel,
    CallClosed,
    CancelModel,
    FirstFrame,
    FloorTaken,
    MarkReturned,
    ModelDelta,
    ModelDone,
    ModelFailed,
    PlaybackCut,
    Speak,
    StageFailed,
)
from threadline.threads.reply import HANG_UP_CAP_NS, REFILL_NS, end_mark
from threadline.threads.ring import EventRing
from threadline.threads.turn_log import SETTLE_NS

SECOND = 1000 * MS


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(brain=None):
        rig = Rig(brain)
        made.append(rig)
        monkeypatch.setattr("threadline.threads.reply.time", rig.clock)
        return rig

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make):
    return make().greeted()


# -- room in the ring ------------------------------------------------------------------------------


def test_a_ring_is_filled_a_quarter_of_a_second_at_a_time(rig):
    rig.turn("hello", epoch=1)
    rig.voice(frames=300, tail=1)
    ring = rig.call.outgoing
    assert ring.depth() == ring.capacity
    for _ in range(5):
        ring.pop()
    rig.step()
    assert ring.depth() == ring.capacity - 5
    assert rig.stage._due <= rig.clock.now + REFILL_NS  # nobody need wake it
    rig.clock.now += REFILL_NS
    rig.step()
    assert ring.depth() == ring.capacity


# -- goodbye ---------------------------------------------------------------------------------------


def test_the_agent_hangs_up_when_its_goodbye_was_played_out(rig):
    rig.turn("bye", epoch=1)
    rig.voice()
    rig.played()
    rig.step()
    assert rig.hung_up() == []
    rig.tell(MarkReturned, "1.2")  # the clause: its tail is still to come
    assert rig.hung_up() == []
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == ["the agent said goodbye"]
    rig.tell(MarkReturned, end_mark(1))
    rig.clock.now += 60 * SECOND
    rig.step()
    assert rig.hung_up() == []  # once


def test_the_agent_hangs_up_in_time_when_no_mark_comes_back(rig):
    rig.turn("bye", epoch=1)
    rig.voice(frames=49, tail=1)
    rig.clock.now += 1 * SECOND + HANG_UP_CAP_NS - 20 * MS  # the goodbye is one second long
    rig.step()
    assert rig.hung_up() == []
    rig.clock.now += 60 * MS
    rig.step()
    assert rig.hung_up() == ["the agent said goodbye"]


def test_the_end_of_another_answer_is_not_that_of_the_goodbye(rig):
    rig.turn("one", epoch=1)
    rig.voice()
    rig.hear("bye", 1)  # words that came late: a second answer under the same epoch
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == []
    rig.voice()
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == ["the agent said goodbye"]


def test_an_answer_that_was_cut_off_owes_no_end(rig):
    rig.turn("one", epoch=1)
    rig.voice()
    rig.turn("bye", epoch=2)
    rig.voice()
    rig.tell(MarkReturned, end_mark(2))
    assert rig.hung_up() == ["the agent said goodbye"]


def test_a_caller_who_speaks_over_the_goodbye_stays_on_the_line(rig):
    rig.turn("bye", epoch=1)
    rig.voice()
    rig.take_floor(2)
    rig.tell(MarkReturned, end_mark(1))
    rig.tell(MarkReturned, end_mark(2))
    rig.clock.now += 60 * SECOND
    rig.step()
    assert rig.hung_up() == []


def test_a_goodbye_that_cannot_be_spoken_hangs_up_at_once(rig):
    rig.turn("bye", epoch=1)
    rig.spoken(1, 2, 0, reason="the voice is hoarse")
    assert rig.hung_up() == ["the agent said goodbye"]


def test_after_the_call_nothing_is_said(rig):
    rig.turn("one", epoch=1)
    rig.tell(CallClosed, "the caller hung up")
    rig.voice()
    rig.turn("two", epoch=2)
    assert rig.texts() == ["You said one."]
    assert rig.played() == []


# -- a stage that fails ----------------------------------------------------------------------------


def test_a_defect_is_apologised_for_and_the_call_ends_after_it(rig):
    rig.turn("one", epoch=1)
    rig.voice(clauses=1)
    rig.played()
    rig.tell(StageFailed, "asr")
    frames = rig.played()
    assert len(frames) == APOLOGY_FRAMES + 1
    assert {epoch for _, epoch, _, _ in frames} == {1}
    assert frames[-1][3] == END_OF_REPLY
    rig.voice()
    rig.hear("two", 1)
    assert rig.played() == []  # nothing but the apology
    assert rig.texts() == ["You said one."]
    assert rig.hung_up() == []
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == ["a defect in asr"]
    assert rig.stage.apologies == 1


def test_an_apology_carries_the_newest_epoch(rig):
    rig.call.epoch.at = 4  # vad has raised it; reply does not know yet
    rig.tell(StageFailed, "vad")
    assert {epoch for _, epoch, _, _ in rig.played()} == {4}


def test_an_apology_is_not_cut_off_by_the_end_of_the_answer_before_it(rig):
    rig.turn("one", epoch=1)
    rig.voice()
    rig.tell(StageFailed, "tts")
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == []
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == ["a defect in tts"]


def test_an_apology_that_does_not_fit_yet_is_waited_for(rig):
    rig.turn("one", epoch=1)
    rig.voice(frames=rig.call.outgoing.capacity - 2)
    rig.tell(StageFailed, "tts")
    rig.tell(MarkReturned, end_mark(1))
    assert rig.hung_up() == []


def test_what_waits_behind_the_ring_gives_way_to_the_apology(rig):
    rig.brain.answers["much"] = " ".join(["This is a sentence of many."] * 6)
    rig.turn("much", epoch=1)
    room = rig.call.outgoing.capacity
    rig.voice(frames=room + AHEAD_BYTES // FRAME + 2, clauses=1)
    rig.voice(frames=1, clauses=1)
    rig.asked.clear()
    rig.tell(StageFailed, "tts")
    frames = rig.played()
    rig.step()
    frames += rig.played()
    assert len(frames) == room + APOLOGY_FRAMES + 1
    rig.step()
    assert rig.asked == []


def test_a_call_whose_apology_is_never_heard_ends_all_the_same(rig):
    rig.tell(StageFailed, "pacer")
    rig.clock.now += HANG_UP_CAP_NS + SECOND
    rig.step()
    assert rig.hung_up() == ["a defect in pacer"]


def test_an_apology_that_is_spoken_over_ends_the_call(rig):
    rig.tell(StageFailed, "asr")
    rig.take_floor(1)
    assert rig.hung_up() == ["a defect in asr"]
    rig.take_floor(2)
    assert rig.hung_up() == []


@pytest.mark.parametrize(
    ("stage", "over"),
    [("asr", False), ("vad", False), ("vad-2", False), ("pacer", True), ("io-calls-2", True)],
)
def test_a_second_defect_ends_the_call_when_the_apology_cannot_be_heard_either(rig, stage, over):
    rig.tell(StageFailed, "vad")
    rig.tell(StageFailed, stage)
    assert rig.hung_up() == ["a defect in vad"] * over
    assert rig.stage.apologies == 1
    assert len(rig.played()) == APOLOGY_FRAMES + 1


# -- what is written down --------------------------------------------------------------------------


class Log:
    """In the place of the logger: keeps what is said of turns."""

    def __init__(self):
        self.turns = []

    def info(self, event, /, **fields):
        if event == "turn":
            self.turns.append(fields)

    def warning(self, event, /, **fields):
        pass


@pytest.fixture
def turns(rig, monkeypatch):
    log = Log()
    monkeypatch.setattr("threadline.threads.turn_log.log", log)
    return log.turns


def test_a_turn_is_written_down_with_stages_that_add_up(rig, turns):
    rig.turn("one", epoch=1)
    spoke_until = rig.clock.now - 900 * MS
    rig.clock.now += 30 * MS
    rig.voice(clauses=1)
    rig.tell(FirstFrame, 1, 9, rig.clock.now)  # not the first clause of this answer
    rig.clock.now += 50 * MS
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    total = (rig.clock.now - spoke_until) / MS
    rig.voice()
    rig.tell(FirstFrame, 1, 2, rig.clock.now + SECOND)  # once
    assert turns == []
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    assert (turn["call_id"], turn["turn"], turn["interrupted"]) == ("CA1", 1, False)
    assert (turn["heard"], turn["said"]) == ("one", "You said one.")
    assert turn["decode_ms"] == pytest.approx(300)
    stages = turn["stages_ms"]
    assert list(stages) == list(STAGES)
    assert sum(stages.values()) == pytest.approx(total, abs=0.3)
    assert (stages["endpoint"], stages["speak"], stages["pace"]) == (400, 30, 50)
    for name in STAGES:
        assert rig.stage.stats.stages[name].snapshot().count == 1
        assert rig.stage.stats.stages[name].sum == stages[name]
    assert rig.stage.stats.response.snapshot().count == 1
    assert rig.stage.stats.response.sum == sum(stages.values())


def test_a_turn_is_written_down_once_and_the_next_one_on_its_own(rig, turns):
    rig.turn("one", epoch=1)
    rig.voice()
    rig.tell(MarkReturned, end_mark(1))
    rig.turn("two", epoch=2)
    rig.voice()
    rig.tell(CallClosed, "the caller hung up")
    assert [(turn["turn"], turn["heard"]) for turn in turns] == [(1, "one"), (2, "two")]
    assert rig.stage.stats.turns == 2
    assert rig.stage.stats.interrupted == 0


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_answer_that_was_spoken_over_is_written_down_as_such(rig, turns, handed_over):
    rig.turn("one", epoch=1)
    if handed_over:  # all of it is in the ring, and some of it in the ear
        rig.voice()
        rig.played(1)
    rig.take_floor(2)
    assert rig.stage.stats.interrupted == 1
    assert turns == []  # how much was heard is not known yet
    rig.tell(PlaybackCut, 1, 2 * handed_over, 40)
    (turn,) = turns
    assert turn["interrupted"]
    assert turn["said"] == "You said one."
    assert (turn["played"], turn["unplayed"]) == (
        ("You said", "one.") if handed_over else ("", "You said one.")
    )


def test_a_cut_that_is_never_told_delays_the_record_only_so_long(rig, turns):
    rig.turn("one", epoch=1)
    rig.take_floor(2)
    rig.clock.now += SETTLE_NS - 10 * MS
    rig.step()
    assert turns == []
    rig.clock.now += 10 * MS
    rig.step()
    assert [turn["interrupted"] for turn in turns] == [True]


def test_a_first_frame_that_comes_after_its_answer_was_cut_counts_for_nothing(rig, turns):
    rig.turn("one", epoch=1)
    rig.voice()
    rig.take_floor(2)
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    rig.hear("two", 2)
    rig.tell(CallClosed, "the caller hung up")
    assert [turn["stages_ms"] for turn in turns] == [{}, {}]


# -- a model elsewhere -----------------------------------------------------------------------------


@pytest.fixture
def remote(make):
    rig = make(RemoteBrain("Good evening.", "Be brief.")).greeted()
    list(rig.vendors.events())
    return rig


def asked(rig):
    return [event for event in rig.vendors.events() if isinstance(event, AskModel | CancelModel)]


def test_a_model_is_asked_and_its_words_are_spoken_as_they_come(remote):
    remote.turn("a table please", epoch=1)
    (ask,) = asked(remote)
    assert isinstance(ask, AskModel)
    assert (ask.slot, ask.generation, ask.epoch, ask.ask) == (0, LIVE, 1, 1)
    assert [message.role for message in ask.messages] == ["system", "assistant", "user"]
    assert remote.call.busy.at == 1
    remote.tell(ModelDelta, 1, 1, "For how many people would that be? On what")
    assert remote.texts() == ["For how many people would that be?"]
    remote.voice()
    assert remote.call.busy.at == 1
    remote.tell(ModelDelta, 1, 1, " day?")
    remote.tell(ModelDone, 1, 1)
    assert remote.texts()[1:] == ["On what day?"]
    remote.voice()
    frames = remote.played()
    assert frames[-1][3] == END_OF_REPLY
    assert [flags for *_, flags in frames].count(END_OF_REPLY) == 1
    assert remote.call.busy.at == 0


def test_a_model_that_fails_is_excused(remote):
    remote.turn("a table please", epoch=1)
    remote.tell(ModelFailed, 1, 1, "the server is gone")
    assert "something went wrong" in remote.texts()[0]
    remote.voice()
    assert remote.played()[-1][3] == END_OF_REPLY


def test_a_caller_who_takes_the_floor_cancels_the_request(remote):
    remote.turn("a table please", epoch=1)
    asked(remote)
    remote.tell(ModelDelta, 1, 1, "For how many people would that be? On")
    remote.tell(FloorTaken, 2, remote.clock.now)
    assert asked(remote) == [CancelModel(0, LIVE, 1)]
    remote.asked.clear()
    remote.tell(ModelDelta, 1, 1, " what day would you like to come? Friday?")
    remote.tell(ModelDone, 1, 1)
    assert not any(isinstance(order, Speak) for order in remote.asked)
    remote.hear("for four", 2)
    (ask,) = asked(remote)
    assert (ask.epoch, ask.ask) == (2, 2)


@pytest.mark.parametrize("event", [(CallClosed, "the caller hung up"), (StageFailed, "tts")])
def test_the_end_of_a_call_cancels_the_request(remote, event):
    remote.turn("a table please", epoch=1)
    asked(remote)
    remote.tell(*event)
    assert asked(remote) == [CancelModel(0, LIVE, 1)]


def test_every_record_of_a_call_goes_to_whoever_keeps_traces(rig, turns):
    """The same values as in the log, with the time at which each was over."""
    ring = rig.stage.stats.traces = EventRing()
    rig.turn("one", epoch=1)
    rig.voice(clauses=1)
    rig.take_floor(2)
    spoken_over = rig.clock.now
    rig.clock.now += 2 * SECOND  # what was heard is told late, if ever
    rig.step()
    rig.hear("two", 2)
    rig.clock.now += SECOND
    rig.tell(CallClosed, "the caller hung up")
    told = [ring.pop() for _ in range(ring.ready())]
    (call,) = {whose for whose, _ in told}
    *records, end = (record for _, record in told)
    assert call.call_id == "CA1"
    assert [record.record() for record in records] == [
        {name: value for name, value in one.items() if name != "call_id"} for one in turns
    ]
    over = next(record for record in records if record.interrupted)
    assert call.at < over.ended <= spoken_over
    assert records[-1].ended > spoken_over + 3 * SECOND
    assert (end.turns, end.reason, end.failed) == (2, "the caller hung up", False)
    assert end.at >= records[-1].ended
