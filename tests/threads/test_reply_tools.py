"""The reply stage and what a conversation waits for: models, tools, the clock, keys."""

import pytest
from reply_rig import LIVE, MS, Rig

from threadline.agent import CallInfo, current_call
from threadline.config import Talk
from threadline.dialog.brain import RemoteBrain
from threadline.dialog.tools import ToolCall, ToolSpec
from threadline.threads.calls import END_OF_REPLY
from threadline.threads.messages import (
    AskModel,
    CallClosed,
    CallOpened,
    CancelModel,
    DigitPressed,
    FirstFrame,
    JobDone,
    Lapse,
    MarkReturned,
    ModelDelta,
    ModelDone,
    ModelFailed,
    ModelTools,
    Partial,
    PlaybackCut,
    RunJob,
    StageFailed,
)
from threadline.threads.orders import GOODBYE_CAP_NS
from threadline.threads.reply import HANG_UP_CAP_NS, end_mark

SECOND = 1000 * MS
SPEC = ToolSpec("book", "Book a table.", {"type": "object", "properties": {}})
CALL = ToolCall("x1", "book", '{"people": 4}')


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(**options):
        rig = Rig(**options)
        made.append(rig)
        monkeypatch.setattr("threadline.threads.reply.time", rig.clock)
        return rig

    yield make
    for rig in made:
        rig.close()


def remote(make, *, workers=2, speculate=False, talk=None):
    """A call with a model behind a socket, its greeting played out."""
    brain = RemoteBrain("Good evening.", "Be brief.", tools=(SPEC,), speculate=speculate)
    rig = make(brain=brain, talk=talk, workers=workers).greeted()
    list(rig.vendors.events())
    return rig


def sent(rig, kind=AskModel | CancelModel):
    return [event for event in rig.vendors.events() if isinstance(event, kind)]


def later(rig, seconds):
    rig.clock.now += int(seconds * SECOND)
    rig.step()


class Log:
    """In the place of the logger: keeps what is said of turns."""

    def __init__(self):
        self.turns = []

    def info(self, event, /, **fields):
        if fields["heard"] is not None:  # else it is the greeting
            self.turns.append(fields)


@pytest.fixture
def turns(monkeypatch):
    log = Log()
    monkeypatch.setattr("threadline.threads.turn_log.log", log)
    return log.turns


# -- tools -----------------------------------------------------------------------------------------


def test_a_tool_runs_in_its_call_and_the_model_goes_on_with_its_result(make):
    rig = remote(make)
    rig.turn("a table for four", epoch=1)
    (ask,) = sent(rig)
    assert ask.tools == (SPEC,)
    rig.tell(ModelTools, 1, 1, (CALL,))
    rig.tell(ModelDone, 1, 1)
    (job,) = rig.jobs
    assert (job.name, job.arguments) == ("book", '{"people": 4}')
    assert job.deadline - rig.clock.now == pytest.approx(10 * SECOND, abs=MS)
    assert job.context.run(current_call.get) == CallInfo("CA1")
    rig.tell(JobDone, job.job, "booked")
    (ask,) = sent(rig)
    assert ask.messages[-1].text == "booked"
    rig.tell(ModelDelta, 1, 2, "It is booked. ")
    rig.tell(ModelDone, 1, 2)
    rig.voice()
    assert rig.texts() == ["It is booked."]
    assert rig.played()[-1][3] == END_OF_REPLY
    assert rig.call.busy.at == 0


def test_a_tool_that_takes_long_gets_a_filler_and_the_answer_follows_it(make, turns):
    rig = remote(make)
    rig.turn("a table for four", epoch=1)
    rig.tell(ModelTools, 1, 1, (CALL,))
    rig.tell(ModelDone, 1, 1)
    later(rig, 0.7)
    assert rig.texts() == []
    later(rig, 0.2)
    (filler,) = rig.texts()
    assert "moment" in filler
    assert rig.stage._due > rig.clock.now  # nothing is due twice
    later(rig, 5)
    assert rig.texts() == [filler]  # one
    rig.voice()
    rig.played()
    rig.step()
    assert rig.call.busy.at == 1  # the answer is still to come
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    rig.tell(MarkReturned, end_mark(1))
    assert turns == []
    rig.clock.now += SECOND
    rig.tell(JobDone, rig.jobs[0].job, "booked")
    rig.tell(ModelDelta, 1, 2, "It is booked. ", first_at=rig.clock.now)
    rig.tell(ModelDone, 1, 2)
    rig.voice()
    rig.tell(FirstFrame, 1, 3, rig.clock.now)
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    assert (turn["said"], turn["fillers"]) == ("It is booked.", [filler])
    assert turn["played"] == "It is booked."
    assert turn["filler_ms"] == pytest.approx(6800, abs=2)  # 900 of them before the words
    assert sum(turn["stages_ms"].values()) == pytest.approx(7800, abs=2)
    stats = rig.stage.stats
    assert (stats.fillers, stats.response.snapshot().count) == (1, 1)
    assert stats.filler.snapshot().count == 1


def test_a_tool_that_overruns_its_deadline_is_given_up_and_the_model_told(make):
    rig = remote(make)
    rig.turn("a table for four", epoch=1)
    rig.tell(ModelTools, 1, 1, (CALL,))
    rig.tell(ModelDone, 1, 1)
    sent(rig)
    later(rig, 10)
    (ask,) = sent(rig)
    assert "book did not answer within 10 s" in ask.messages[-1].text
    rig.tell(JobDone, rig.jobs[0].job, "booked")  # too late
    assert sent(rig) == []


def test_two_tools_can_be_in_the_context_of_one_call_at_once(make):
    rig = remote(make, workers=3)
    rig.turn("a table for four", epoch=1)
    rig.tell(ModelTools, 1, 1, (CALL, ToolCall("x2", "book", "{}")))
    one, other = rig.jobs
    assert one.context.run(other.context.run, current_call.get) == CallInfo("CA1")
    (line,) = rig.stage._lines.values()
    assert line.context.run(one.context.run, current_call.get) == CallInfo("CA1")


def test_a_tool_that_ends_after_the_caller_has_gone_frees_its_worker(make):
    rig = remote(make, workers=1)
    rig.turn("a table for four", epoch=1)
    rig.tell(ModelTools, 1, 1, (CALL,))
    (stuck,) = rig.jobs
    rig.tell(CallClosed, "the caller hung up")
    rig.call.generation.at = LIVE + 2
    rig.tell(CallOpened, "CA2", {}, generation=LIVE + 2)
    rig.call.epoch.at = 2
    rig.to_reply.put(JobDone(0, LIVE, stuck.job, "booked"))
    rig.step()
    assert len(rig.stage._jobs._crew._idle) == 1
    (line,) = rig.stage._lines.values()
    assert line.jobs == {}


def test_a_result_that_comes_after_an_interruption_is_not_spoken(make):
    rig = remote(make)
    rig.turn("a table for four", epoch=1)
    rig.tell(ModelTools, 1, 1, (CALL,))
    rig.tell(ModelDone, 1, 1)
    rig.take_floor(2)
    sent(rig)
    rig.tell(JobDone, rig.jobs[0].job, "booked")
    assert sent(rig) == []
    assert rig.call.busy.at == 0
    rig.hear("for five", 2)
    (ask,) = sent(rig)
    assert "booked" in [message.text for message in ask.messages]


def test_the_end_of_a_call_drops_what_waits_for_a_worker(make):
    rig = remote(make, workers=1)
    rig.turn("a table for four", epoch=1)
    rig.tell(ModelTools, 1, 1, (CALL, ToolCall("x2", "book", "{}")))
    assert len(rig.jobs) == 1
    rig.tell(StageFailed, "asr")
    rig.tell(JobDone, rig.jobs[0].job, "booked")
    assert len(rig.jobs) == 1
    assert rig.stage._jobs._crew._waiting == []


# -- asked early -----------------------------------------------------------------------------------


def test_an_answer_that_was_asked_for_early_is_said_once_the_turn_is_over(make, turns):
    rig = remote(make, speculate=True)
    rig.take_floor(1)
    rig.tell(Partial, 1, 1, "a tab", paused=False, at=rig.clock.now)
    assert sent(rig) == []
    rig.tell(Partial, 1, 1, "a table for four", paused=True, at=rig.clock.now)
    (ask,) = sent(rig)
    rig.tell(ModelDelta, 1, ask.ask, "On what day? ", first_at=rig.clock.now)
    assert rig.texts() == []
    assert rig.call.busy.at == 0
    rig.clock.now += 100 * MS
    rig.hear("A table for four.", 1)
    assert rig.texts() == ["On what day?"]
    assert sent(rig) == []
    rig.tell(ModelDone, 1, ask.ask)
    rig.voice()
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    assert turn["early"]
    assert round(turn["at_ms"]["asked"]) == 800  # 100 before the transcript
    assert turn["stages_ms"]["think"] == 0
    stats = rig.stage.stats
    assert (stats.hits, stats.wasted) == (1, 0)


def test_an_early_answer_to_other_words_is_thrown_away_and_counted(make, turns):
    rig = remote(make, speculate=True)
    rig.take_floor(1)
    rig.tell(Partial, 1, 1, "a table", paused=True, at=rig.clock.now)
    rig.tell(ModelDelta, 1, 1, "For how many? ")
    sent(rig)
    rig.hear("a table for four", 1)
    cancel, ask = sent(rig)
    assert (cancel, ask.ask) == (CancelModel(0, LIVE, 1), 2)
    rig.tell(ModelDelta, 1, 1, "And when? ")
    rig.tell(ModelDelta, 1, 2, "On what day? ")
    rig.tell(ModelDone, 1, 2)
    rig.voice()
    assert rig.texts() == ["On what day?"]
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    assert not turn["early"]
    stats = rig.stage.stats
    assert (stats.hits, stats.wasted) == (0, 1)


def test_an_early_answer_to_a_caller_who_said_nothing_after_all_counts_for_nothing(make, turns):
    rig = remote(make, speculate=True)
    rig.take_floor(1)
    rig.tell(Partial, 1, 1, "hm", paused=True, at=rig.clock.now)
    rig.tell(ModelDelta, 1, 1, "Yes? ")
    rig.tell(ModelDone, 1, 1)
    rig.hear("", 1)
    rig.voice()
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    assert turn["said"] != "Yes?"
    assert not turn["early"]
    assert "asked" not in turn["at_ms"]
    assert rig.stage.stats.wasted == 1


# -- the carrier's news go on to the vendors -------------------------------------------------------


def test_vendors_are_told_of_a_call_s_begin_and_end(make):
    rig = make()
    rig.open()
    rig.tell(CallClosed, "the caller hung up")
    assert sent(rig, CallOpened | CallClosed) == [
        CallOpened(0, LIVE, "CA1", {}),
        CallClosed(0, LIVE, "the caller hung up"),
    ]


def test_tools_know_who_calls(make):
    rig = remote(make)
    rig.tell(CallClosed, "the caller hung up")
    rig.call.generation.at = LIVE + 2
    rig.tell(CallOpened, "CA2", {"From": "+1555", "To": "+1666"}, generation=LIVE + 2)
    (line,) = rig.stage._lines.values()
    assert (line.info.caller, line.info.called) == ("+1555", "+1666")
    assert line.info.parameters["From"] == "+1555"


# -- the clock -------------------------------------------------------------------------------------


def quiet_call(make):
    rig = make(talk=Talk(nudge_seconds=15, nudges=1))
    rig.open()
    rig.voice()
    rig.played()
    return rig


def test_a_caller_who_says_nothing_is_asked_and_then_taken_leave_of(make):
    rig = quiet_call(make)
    later(rig, 60)
    assert len(rig.texts()) == 1  # the greeting has not been played out
    rig.tell(MarkReturned, end_mark(0))
    later(rig, 14.9)
    assert len(rig.texts()) == 1
    later(rig, 0.2)
    assert len(rig.texts()) == 2
    rig.voice()
    rig.played()
    later(rig, 30)
    assert len(rig.texts()) == 2  # the clock stands while the agent speaks
    rig.tell(MarkReturned, end_mark(0))
    later(rig, 15.1)
    assert len(rig.texts()) == 3
    rig.voice()
    rig.played()
    rig.tell(MarkReturned, end_mark(0))
    assert rig.hung_up() == ["the agent said goodbye"]


def test_a_caller_who_speaks_or_is_answered_is_not_asked(make):
    rig = quiet_call(make)
    rig.tell(MarkReturned, end_mark(0))
    later(rig, 14)
    rig.take_floor(1)
    later(rig, 20)
    rig.hear("hello", 1)
    later(rig, 20)
    assert rig.texts()[1:] == ["You said hello."]
    rig.voice()
    rig.played()
    later(rig, 20)
    assert len(rig.texts()) == 2
    rig.tell(MarkReturned, end_mark(1))
    later(rig, 15.1)
    assert len(rig.texts()) == 3


def test_the_stage_wakes_up_by_itself_when_something_is_due(make):
    rig = quiet_call(make)
    rig.tell(MarkReturned, end_mark(0))
    later(rig, 0.5)  # what was due while there was audio to hand over is past
    assert rig.stage._due - rig.clock.now == pytest.approx(14.5 * SECOND, abs=MS)


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["#", None])
def test_keys_are_a_turn_when_the_number_is_complete(make, last):
    rig = make(talk=Talk(nudge_seconds=0)).greeted()
    for key in "42":
        rig.tell(DigitPressed, key)
    assert rig.texts() == []
    if last:
        rig.tell(DigitPressed, last)
    else:
        later(rig, 2.4)
        assert rig.texts() == []
        later(rig, 0.2)
    assert rig.texts() == ["You said (keyed 42)."]


def test_without_a_terminator_every_key_counts(make):
    rig = make(talk=Talk(nudge_seconds=0, digit_terminator="none")).greeted()
    for key in "4#":
        rig.tell(DigitPressed, key)
    later(rig, 3)
    assert rig.texts() == ["You said (keyed 4#)."]


# -- a greeting that cannot be interrupted ---------------------------------------------------------


def test_a_protected_greeting_is_protected_until_it_was_played_out(make):
    rig = make(talk=Talk(protect_greeting=True, nudge_seconds=0))
    rig.open()
    assert rig.call.busy.at == 2
    rig.voice()
    rig.played()
    rig.step()
    assert rig.call.busy.at == 2
    rig.tell(MarkReturned, end_mark(0))
    assert rig.call.busy.at == 0
    rig.turn("hello", epoch=1)
    assert rig.call.busy.at == 1


def test_a_greeting_whose_end_is_never_told_is_not_protected_for_ever(make):
    rig = make(talk=Talk(protect_greeting=True, nudge_seconds=0))
    rig.open()
    later(rig, GOODBYE_CAP_NS / SECOND - 1)
    assert rig.call.busy.at == 2
    rig.voice()
    rig.played()
    later(rig, HANG_UP_CAP_NS / SECOND + 2)
    assert rig.call.busy.at == 0


def test_other_answers_and_a_silent_agent_are_not_protected(make):
    rig = make(talk=Talk(protect_greeting=True, nudge_seconds=0))
    rig.brain.greeting = ""
    rig.open()
    assert rig.call.busy.at == 0
    rig.turn("hello", epoch=1)
    assert rig.call.busy.at == 1


# -- what is written down --------------------------------------------------------------------------


def test_the_record_says_what_was_heard_and_what_was_not(make, turns):
    rig = make().greeted()
    rig.brain.answers["four"] = "That is a table for four people. On what day would you come?"
    rig.turn("four", epoch=1)
    rig.voice(frames=50)
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    rig.tell(Lapse, 1)  # somebody coughed
    rig.take_floor(2)
    rig.tell(PlaybackCut, 1, 3, 500)
    turn = turns[-1]
    assert turn["played"] == "That is a table for four people. On what day"
    assert turn["unplayed"] == "would you come?"
    assert (turn["interrupted"], turn["pauses"]) == (True, 1)


def test_an_answer_whose_first_clause_was_replaced_begins_with_what_was_said_instead(make, turns):
    rig = make(workers=2, guarded=True)
    rig.brain.greeting = ""
    rig.open()
    rig.turn("four", epoch=1)
    rig.voice()
    rig.clock.now += 100 * MS
    rig.tell(JobDone, rig.jobs[0].job, "No.")
    rig.clock.now += 100 * MS
    rig.voice()
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    assert turn["said"] == "No."
    assert round(turn["at_ms"]["voice_asked"]) == 1000
    assert round(turn["at_ms"]["first_audio"]) == 1100


def test_instants_of_a_model_s_answer_are_in_the_record(make, turns):
    rig = remote(make)
    rig.turn("four", epoch=1)
    rig.clock.now += 100 * MS
    first = rig.clock.now
    rig.clock.now += 50 * MS
    rig.tell(ModelDelta, 1, 1, "On what day? ", first_at=first)
    rig.tell(ModelDone, 1, 1)
    rig.clock.now += 25 * MS
    rig.voice()
    rig.clock.now += 20 * MS
    rig.tell(FirstFrame, 1, 2, rig.clock.now)
    rig.tell(MarkReturned, end_mark(1))
    (turn,) = turns
    stages = turn["stages_ms"]
    wanted = {"endpoint": 400, "recognise": 500, "think": 100, "phrase": 50, "speak": 25}
    assert {name: round(stages[name]) for name in wanted} == wanted
    assert round(stages["pace"]) == 20
    at = turn["at_ms"]
    assert at["asked"] <= at["first_token"] <= at["first_clause"] <= at["voice_asked"]
    assert (turn["why"], turn["source"]) == ("", "")


def test_a_model_that_fails_is_logged_and_a_fallback_answers(make):
    rig = remote(make)
    rig.turn("four", epoch=1)
    rig.tell(ModelFailed, 1, 1, "the server is gone")
    assert rig.texts()
    assert not any(isinstance(job, RunJob) for job in rig.jobs)
