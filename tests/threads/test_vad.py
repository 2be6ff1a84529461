"""Who has the floor, and what of the caller's speech reaches asr; see `vad_rig`."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vad_rig import CONFIG, LIVE, MS, SAMPLE_NS, Rig

from threadline.audio import mulaw
from threadline.config import Endpoint
from threadline.listening.backchannel import Barge
from threadline.listening.speech import PROTECTED
from threadline.threads.calls import FRAME, WINDOW
from threadline.threads.messages import Doubt, FloorTaken, Lapse, Silence, TurnOver
from threadline.threads.vad import FRESH_FRAMES
from threadline.threads.wake import Inbox


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


@pytest.fixture
def make():
    made = []

    def make(**options):
        made.append(Rig(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def kinds(events):
    return [type(event).__name__ for event in events]


# -- the floor -----------------------------------------------------------------------------------


def test_an_onset_holds_the_pacer_at_once_and_tells_nobody(rig):
    call = rig.calls[0]
    assert rig.hear("....") == []
    assert call.hold.at == 0
    assert rig.hear("s") == []
    assert (call.hold.at, call.epoch.at) == (1, 0)
    assert rig.at_wake == []


def test_taking_the_floor_raises_the_epoch_lifts_the_hold_and_tells_io_and_reply(rig):
    call = rig.calls[0]
    call.epoch.at = 8
    rig.hear("ss")
    (event,) = rig.hear("s")
    assert (event.slot, event.generation, event.epoch) == (0, LIVE, 9)
    assert isinstance(event, FloorTaken)
    assert (call.epoch.at, call.hold.at) == (9, 0)
    assert rig.at_wake == [(9, 0)]


def test_the_io_calls_that_has_the_call_is_woken(make):
    rig = make(calls=2)
    rig.calls[1].epoch.at = 8
    assert kinds(rig.hear("sss", slot=1)) == ["FloorTaken"]
    assert rig.at_wake == [(9, 0)]


def test_the_epoch_is_raised_before_the_hold_is_lifted(rig):
    """The pacer loads them in the other order: else it would see an old answer and a free floor."""
    order = []

    class Told:
        def __init__(self, name):
            self.name, self.value = name, 0

        @property
        def at(self):
            return self.value

        @at.setter
        def at(self, value):
            self.value = value
            order.append((self.name, value))

    rig.calls[0].hold, rig.calls[0].epoch = Told("hold"), Told("epoch")
    rig.hear("sss")
    assert order == [("hold", 1), ("epoch", 1), ("hold", 0)]


@pytest.mark.parametrize("by", ["busy", "playing", "ring"])
def test_from_an_agent_who_speaks_or_is_about_to_it_takes_more(rig, by):
    call = rig.calls[0]
    if by == "ring":  # reply has said all of its answer, and the pacer has not begun
        call.outgoing.push(LIVE, 0, 1, 0, 0, b"")
    else:
        getattr(call, by).at = 1
    assert rig.hear("sssss") == []
    assert rig.calls[0].hold.at == 1
    assert rig.hear("s") == [Doubt(0, LIVE, 1, 6, stopped=False)]
    assert kinds(rig.hear("sss")) == ["FloorTaken"]  # nobody said what it was


def test_what_was_nothing_lifts_the_hold_and_leaves_the_epoch(rig):
    call = rig.calls[0]
    call.playing.at = 1
    assert rig.hear("ss....") == [Lapse(0, LIVE, 1)] * 2  # for asr and for reply
    assert (call.hold.at, call.epoch.at) == (0, 0)
    assert rig.at_wake == []
    assert (rig.stage.pauses, rig.stage.resumes, rig.stage.floors) == (1, 1, 0)


# -- who speaks over a talking agent ---------------------------------------------------------------


def talk_over(rig, script):
    rig.calls[0].playing.at = 1
    return rig.hear(script)


@pytest.mark.parametrize("kind", [Barge.WORDS, Barge.STOP])
def test_words_over_a_talking_agent_take_the_floor_at_once(rig, kind):
    talk_over(rig, "ssssss")
    (taken,) = rig.opine(kind, 6)
    assert (type(taken), taken.epoch) == (FloorTaken, 1)
    assert (rig.calls[0].epoch.at, rig.calls[0].hold.at) == (1, 0)
    assert rig.at_wake == [(1, 0)]


def test_words_that_are_known_after_they_were_said_are_a_turn(rig):
    assert talk_over(rig, "sss....") == [Doubt(0, LIVE, 1, 6, stopped=True)]
    silence, taken = rig.opine(Barge.STOP, 6)
    assert (type(taken), taken.epoch) == (FloorTaken, 1)
    assert (type(silence), silence.windows, silence.epoch) == (Silence, 6, 1)
    (over,) = rig.hear(".")
    assert (type(over), over.windows, over.epoch, over.utterance) == (TurnOver, 6, 1, 1)


@pytest.mark.parametrize("kind", [Barge.NOTHING, Barge.BACKCHANNEL])
def test_a_backchannel_lets_the_agent_go_on(rig, kind):
    talk_over(rig, "sss....")
    assert rig.calls[0].hold.at == 1
    assert rig.opine(kind, 6) == [Lapse(0, LIVE, 1)] * 2  # for asr and for reply
    assert (rig.calls[0].hold.at, rig.calls[0].epoch.at) == (0, 0)
    assert (rig.stage.pauses, rig.stage.resumes, rig.stage.doubts) == (1, 1, 1)


@pytest.mark.parametrize("stale", [{"utterance": 0}, {"utterance": 2}, {"generation": LIVE - 2}])
def test_an_opinion_of_other_speech_is_ignored(rig, stale):
    talk_over(rig, "ssssss")
    for kind in Barge:
        assert rig.opine(kind, 6, **stale) == []
    assert rig.calls[0].hold.at == 1
    assert kinds(rig.opine(Barge.WORDS, 6)) == ["FloorTaken"]


def test_an_opinion_of_a_caller_who_has_hung_up_is_ignored(rig):
    talk_over(rig, "ssssss")
    rig.calls[0].generation.at += 1
    assert rig.opine(Barge.WORDS, 6) == []
    assert (rig.calls[0].epoch.at, rig.calls[0].hold.at) == (0, 0)


def test_a_protected_greeting_is_neither_paused_nor_interrupted(rig):
    call = rig.calls[0]
    call.busy.at, call.playing.at = PROTECTED, 1
    assert rig.hear("ssssssss") == []
    assert rig.opine(Barge.STOP, 8) == []
    assert (call.hold.at, call.epoch.at, rig.stage.pauses) == (0, 0, 0)
    call.busy.at = call.playing.at = 0
    assert kinds(rig.hear("s")) == ["FloorTaken"]  # and who goes on speaking is heard then


def test_an_agent_who_talks_on_after_a_protected_greeting_is_paused_when_asked(rig):
    rig.calls[0].busy.at = PROTECTED
    rig.hear("ssssss")
    rig.calls[0].busy.at = 1
    assert kinds(rig.hear("s")) == ["Doubt"]
    assert rig.calls[0].hold.at == 1


# -- how long a pause may last ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "judged", "windows", "why"),
    [
        ("smart", False, 5, "hangover"),
        ("smart", True, 8, "unjudged"),
        ("silence", False, 4, "silence"),
        ("silence", True, 4, "silence"),
    ],
)
def test_a_pause_that_nobody_judged_ends_the_turn_after(make, mode, judged, windows, why):
    endpoint = Endpoint(mode=mode, complete_ms=4 * MS, patient_ms=8 * MS)
    rig = make(endpoint=endpoint, judged=judged)
    rig.hear("sss" + "." * (windows - 1))
    (over,) = rig.hear(".")
    assert (type(over), over.why) == (TurnOver, why)


def test_patience_ends_the_turn_when_it_is_over_or_at_once(make):
    rig = make(judged=True)
    rig.hear("sss...")
    assert rig.be_patient(6, 4 * MS) == []
    (over,) = rig.hear(".")
    assert (type(over), over.windows, over.why) == (TurnOver, 6, "complete")
    rig.hear("sss....")
    (over,) = rig.be_patient(4 + 3 + 3, 4 * MS, "answer", utterance=2)
    assert (over.windows, over.utterance, over.why) == (10, 2, "answer")


@pytest.mark.parametrize(
    "stale", [{"utterance": 0}, {"generation": LIVE - 2}, {"windows": 5}, {"windows": 7}]
)
def test_patience_with_another_pause_is_ignored(make, stale):
    rig = make(judged=True)
    rig.hear("sss.....")
    assert rig.be_patient(**{"windows": 6, "ms": 4 * MS, **stale}) == []
    assert kinds(rig.be_patient(6, 4 * MS)) == ["TurnOver"]


# -- what asr gets -------------------------------------------------------------------------------


def test_asr_is_given_an_utterance_from_its_onset_on(rig):
    rig.hear("..")
    assert rig.speech() == {}
    rig.hear("s")
    assert rig.speech()[1] == rig.fed[0][: 3 * WINDOW]  # with its pre-roll
    rig.hear(".")
    assert rig.speech()[1] == rig.fed[0][3 * WINDOW : 4 * WINDOW]


def test_asr_is_woken_once_for_all_the_windows_of_a_turn(make, monkeypatch):
    rig = make(calls=2)
    woken, wake = [], Inbox.wake

    def counted(self):
        woken.append(self.name)
        wake(self)

    monkeypatch.setattr(Inbox, "wake", counted)
    rig.network.script = {0: "." * 5, 1: "." * 5}
    for slot in (0, 1):
        rig.push(8, slot)
    rig.step()
    assert woken == ["vad"]
    rig.network.script = {0: "ss...", 1: "ss..."}
    for slot in (0, 1):
        rig.push(8, slot)
    rig.step()
    assert (woken, rig.stage.windows) == (["vad", "vad", "asr"], 20)
    rig.step()
    assert woken[3:] == ["vad"]  # it has been told


def test_a_turn_is_told_with_the_windows_that_asr_was_given(rig):
    taken, silence, over = sorted(rig.hear("......sss.....", slot=0), key=lambda event: event.at)
    assert isinstance(taken, FloorTaken)
    assert isinstance(silence, Silence)
    assert isinstance(over, TurnOver)
    assert silence.windows == over.windows == 4 + 3 + 3
    assert silence.utterance == over.utterance == 1
    assert {silence.epoch, over.epoch} == {taken.epoch}
    audio = rig.speech()[1]
    begin = (6 - 4) * WINDOW
    assert audio[: over.windows * WINDOW] == rig.fed[0][begin : begin + over.windows * WINDOW]


def test_the_pre_roll_is_what_there_is(rig):
    *_, over = (event for event in rig.hear(".sss.....") if isinstance(event, TurnOver))
    assert over.windows == 1 + 3 + 3
    assert rig.speech()[1][: 7 * WINDOW] == rig.fed[0][: 7 * WINDOW]


def test_a_pause_that_is_none_names_more_windows_later(rig):
    events = [e for e in rig.hear("sss...s.....") if not isinstance(e, FloorTaken)]
    assert kinds(events) == ["Silence", "Silence", "TurnOver"]
    assert [event.windows for event in events] == [6, 10, 10]


def test_the_end_of_speech_is_the_end_of_its_last_window_whatever_came_later(rig):
    """Both when frames come one by one and when they were held up."""
    begin = rig.now
    rig.network.script[0] = "." * 2 + "s" * 4 + "." * 8
    rig.push(24)
    rig.step()
    (over,) = [event for event in rig.events() if isinstance(event, TurnOver)]
    assert over.spoke_until == begin + 6 * WINDOW * SAMPLE_NS


@example(script=[("s", 4), (".", 6), ("s", 2)], pieces=[1], busy=True)
@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(st.tuples(st.sampled_from("s."), st.integers(1, 12)), max_size=12),
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    busy=st.booleans(),
)
def test_what_asr_is_given_is_what_the_caller_said_byte_by_byte(script, pieces, busy):
    """Whatever the speech, and in whatever pieces it arrives."""
    rig = Rig()
    text = "".join(letter * count for letter, count in script) + "." * 15
    rig.network.script[0] = text
    rig.calls[0].busy.at = int(busy)
    events, audio = [], {}
    i = 0
    while rig.stage.windows < len(text):
        rig.push(pieces[i % len(pieces)])
        rig.step()
        events += rig.events()
        for number, more in rig.speech().items():
            audio[number] = audio.get(number, b"") + more
        i += 1
    rig.close()
    assert rig.stage.lost == rig.stage.skipped == 0
    named = {}
    for event in events:
        if isinstance(event, Silence | TurnOver | Lapse):
            named.setdefault(event.utterance, []).append(event)
    assert set(named) == set(audio)
    fed, at = bytes(rig.fed[0]), 0
    for number, told in sorted(named.items()):
        if isinstance(told[0], Lapse):
            assert told == [told[0]] * 2  # for asr and for reply
            at = fed.index(audio[number], at) + WINDOW
            continue
        heard = audio[number][: told[-1].windows * WINDOW]
        assert len(heard) == told[-1].windows * WINDOW
        found = fed.index(heard, at)
        assert found % WINDOW == 0
        assert kinds(told)[-1] == "TurnOver"
        assert "TurnOver" not in kinds(told)[:-1]
        pauses = [event.windows for event in told[:-1]]
        assert told[-1].windows in pauses or not pauses  # taken when it was over already
        letters = text[found // WINDOW :][: told[-1].windows]
        assert letters[4] == "s" if found else "s" in letters[:5]  # behind the pre-roll
        assert letters.endswith("s...")  # as much silence as it takes to begin a decode
        at = found + WINDOW


def test_a_full_ring_loses_the_newest_windows_counted_and_stops_nothing(rig):
    room = rig.calls[0].speech.capacity
    events = rig.hear("s" * (room + 10) + ".....")
    assert kinds(events) == ["Silence", "TurnOver", "FloorTaken"]
    assert rig.stage.lost == 10 + 5
    assert rig.speech()[1] == rig.fed[0][: room * WINDOW]


# -- level ---------------------------------------------------------------------------------------


def test_the_network_alone_cannot_keep_a_turn_open(make):
    """It believes in speech for a while after the last sound."""
    rig = make(config=replace(CONFIG, drop_db=20.0))
    rig.network.script[0] = "s" * 10
    rig.push(8, level=0x00)  # the loudest there is
    rig.push(16, level=mulaw.SILENCE)
    rig.step()
    silence, over, _ = rig.events()
    assert silence.windows == over.windows == 5 + 3


# -- many calls ----------------------------------------------------------------------------------


def test_all_calls_that_are_due_are_judged_in_one_run(make):
    rig = make(calls=5)
    for slot in (0, 2, 4):
        rig.push(2, slot)
    rig.push(1, 3)  # less than a window
    rig.step()
    assert rig.network.runs == [[0, 2, 4]]
    assert (rig.stage.runs, rig.stage.windows) == (1, 3)


def test_one_run_never_has_two_windows_of_a_call(make):
    rig = make(calls=3)
    rig.push(8, 0)
    rig.push(4, 1)
    rig.push(2, 2)
    rig.step()
    assert rig.network.runs == [[0, 1, 2], [0, 1], [0], [0], [0]]


def test_each_call_is_judged_on_its_own(make):
    rig = make(calls=3)
    rig.network.script = {0: "......", 1: "ssssss", 2: "......"}
    for slot in range(3):
        rig.push(10, slot)
    rig.step()
    (event,) = rig.events()
    assert (type(event), event.slot) == (FloorTaken, 1)
    assert [call.epoch.at for call in rig.calls] == [0, 1, 0]


def test_nothing_is_done_without_a_wake_up(rig, monkeypatch):
    rig.push(8)
    monkeypatch.setattr(Inbox, "wait", lambda self, timeout: False)
    rig.stage.step()
    assert rig.stage.windows == 0


# -- another caller ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["s", "sss", "sss..."])
def test_another_caller_inherits_nothing(rig, before):
    call = rig.calls[0]
    rig.hear("...." + before)
    rig.events()
    rig.speech()
    epoch = call.epoch.at
    call.generation.at = LIVE + 2
    fed = len(rig.fed[0])
    rig.network.resets.clear()
    events = rig.hear("..sss.....")
    assert rig.network.resets == [0]
    assert kinds(events) == ["Silence", "TurnOver", "FloorTaken"]
    assert {event.generation for event in events} == {LIVE + 2}
    assert call.epoch.at == epoch + 1
    (audio,) = rig.speech().values()
    assert audio == rig.fed[0][fed:][: 10 * WINDOW]  # no pre-roll of the one before


def test_a_hold_does_not_outlive_its_caller(rig):
    rig.hear("s")
    assert rig.calls[0].hold.at == 1
    rig.calls[0].generation.at += 1
    rig.step()
    assert rig.calls[0].hold.at == 0


def test_frames_of_an_earlier_caller_are_ignored(rig):
    rig.push(10)
    rig.calls[0].generation.at = LIVE + 2
    rig.step()
    assert rig.stage.windows == 0


def test_a_call_that_is_over_is_not_judged(rig):
    rig.calls[0].generation.at = LIVE + 1
    rig.push(10)
    rig.step()
    assert rig.stage.windows == 0


def test_two_utterances_of_one_caller_have_two_numbers(rig):
    rig.hear("sss.....sss.....")
    assert list(rig.speech()) == [1, 2]


# -- a defect ------------------------------------------------------------------------------------


def test_a_call_that_cannot_be_judged_is_left_alone_until_the_next_caller(make):
    rig = make(calls=2)
    first, second = rig.calls
    rig.hear("s", 0)
    assert first.hold.at == 1
    ear = rig.stage._ears[0]
    machine, ear.machine = ear.machine, None  # a defect
    rig.push(2, 0)
    with pytest.raises(AttributeError):
        rig.step()
    assert rig.stage.on_call is first
    rig.hear("sss", 1)
    assert rig.stage.on_call is None
    assert (first.hold.at, first.epoch.at, second.epoch.at) == (0, 0, 1)
    ear.machine = machine
    judged = rig.stage.windows
    rig.push(8, 0)
    rig.step()
    assert rig.stage.windows == judged
    first.generation.at += 2
    assert kinds(rig.hear("sss", 0)) == ["FloorTaken"]


# -- late ----------------------------------------------------------------------------------------


def test_more_than_a_second_of_audio_is_skipped_to_its_newest_second(rig):
    rig.push(FRESH_FRAMES + 30)
    rig.step()
    assert rig.stage.skipped == 30
    assert rig.stage.windows == FRESH_FRAMES * FRAME // WINDOW


def test_a_second_of_audio_is_not(rig):
    rig.push(FRESH_FRAMES)
    rig.step()
    assert rig.stage.skipped == 0
