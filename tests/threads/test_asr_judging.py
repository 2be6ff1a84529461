"""What asr tells vad and endpoint: the stage as in test_asr.py."""

from dataclasses import replace

import pytest
from asr_rig import LIVE, making

from threadline.listening.backchannel import Barge
from threadline.threads.messages import JudgeTurn, Opinion, Patience

make = pytest.fixture(making, name="make")


@pytest.fixture
def rig(make):
    return make()


# -- what is said over a talking agent -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", Barge.NOTHING),
        ("uh-huh", Barge.BACKCHANNEL),
        ("I want two pizzas", Barge.WORDS),
        ("stop", Barge.STOP),
    ],
)
def test_a_doubt_is_answered_by_the_words_of_its_windows(rig, text, kind):
    rig.speak(10)
    rig.doubt(9)
    rig.step()
    assert rig.decoded() == [rig.audio(9)]
    assert rig.opinions() == []
    rig.recogniser.answer(text)
    assert rig.step() == []
    assert rig.opinions() == [Opinion(0, LIVE, 1, 9, kind)]
    assert rig.stage._judging.opinions[kind] == 1
    assert rig.partials == []  # it has no turn yet


def test_what_was_read_for_a_doubt_is_not_read_again_for_its_turn(rig):
    rig.speak(9)
    rig.doubt(9, stopped=True)
    rig.step()
    rig.recogniser.answer("stop")
    rig.step()
    rig.silence(9)  # vad has given it the floor
    rig.over(9, why="answer")
    (transcript,) = rig.step()
    assert (transcript.text, transcript.why, transcript.source) == ("stop", "answer", "whisper")
    assert len(rig.decoded()) == 1
    assert rig.whisper.wasted == 0


def test_a_doubt_goes_before_decodes_ahead_and_after_turns_that_wait(make):
    rig = make(calls=3)
    rig.recogniser.workers = 0
    for slot in range(3):
        rig.speak(4, slot=slot)
    rig.silence(4, slot=0)
    rig.doubt(4, slot=1)
    rig.over(4, slot=2)
    rig.step()
    rig.recogniser.workers = 3
    rig.step()
    assert [audio[0] for audio in rig.decoded()] == [2, 1, 0]


@pytest.mark.parametrize(("text", "told"), [("wait", [Barge.STOP]), ("uh-huh", [])])
def test_words_of_an_overtaken_doubt_are_news_and_no_words_are_not(rig, text, told):
    rig.speak(9)
    rig.doubt(9)
    rig.step()
    rig.speak(5)
    rig.doubt(14, stopped=True)
    rig.step()
    rig.recogniser.answer(text)
    rig.step()
    assert [(one.windows, one.kind) for one in rig.opinions()] == [(9, kind) for kind in told]


def test_a_doubt_that_nobody_could_read_is_not_answered(rig):
    rig.speak(9)
    rig.doubt(9)
    rig.step()
    rig.recogniser.answer(None, reason="it crashed")
    assert rig.step() == []
    assert rig.opinions() == []
    rig.speak(3)
    rig.over(12)  # it has lasted, and was a turn after all
    rig.step()
    rig.recogniser.answer("hello")
    (transcript,) = rig.step()
    assert transcript.text == "hello"


def test_who_has_taken_the_floor_meanwhile_is_no_matter_of_opinion(rig):
    rig.speak(9)
    rig.doubt(9)
    rig.step()
    rig.epoch = 1  # nobody answered in time
    rig.speak(1)
    rig.step()
    rig.recogniser.answer("stop")
    rig.step()
    assert rig.opinions() == []


@pytest.mark.parametrize("begun", [False, True])
def test_what_lapsed_is_forgotten(rig, begun):
    rig.recogniser.workers = int(begun)
    rig.speak(9)
    rig.doubt(9)
    rig.step()
    rig.lapse()
    rig.step()
    if begun:
        rig.recogniser.answer("stop")
    rig.recogniser.workers = 1
    assert rig.step() == []
    assert rig.opinions() == []
    assert len(rig.decoded()) == int(begun)
    rig.speak(4, utterance=2)
    rig.over(4, utterance=2)
    rig.step()
    assert rig.decoded()[-1] == rig.audio(4, 2)
    assert rig.whisper.wasted == 0


# -- how long a pause may last -------------------------------------------------------------------


def judgements(rig):
    return list(rig.endpoint.events())


def patience(rig):
    return [event for event in rig.to_vad.events() if isinstance(event, Patience)]


def test_a_pause_is_judged_by_its_sound_and_again_when_its_words_are_known(make):
    rig = make(judged=True)
    rig.speak(11)
    rig.silence(9)
    rig.step()
    first = JudgeTurn(0, LIVE, 1, 1, 9, rig.audio(9), "", hold=True)
    assert judgements(rig) == [first]  # Whisper's words will come, and nothing is said before
    rig.recogniser.answer("a table for four")
    rig.step()
    assert judgements(rig) == [replace(first, text="a table for four", hold=False)]
    assert patience(rig) == []  # that depends on how it sounded


def test_a_pause_without_words_is_judged_by_its_sound_alone(make):
    rig = make(judged=True)
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.recogniser.answer("")
    rig.step()
    assert [(event.text, event.hold) for event in judgements(rig)] == [("", True), ("", False)]


def test_words_that_demand_patience_do_not_wait_for_the_judgement(make):
    rig = make(judged=True)
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.recogniser.answer("a table for four and")
    rig.step()
    (told,) = patience(rig)
    assert (told.utterance, told.windows) == (1, 9)
    assert told.silence_ms == rig.config.endpoint.patient_ms
    assert judgements(rig)[-1].text == "a table for four and"


def test_words_that_are_known_at_the_silence_are_judged_with_it(make):
    rig = make(judged=True)
    rig.speak(9)
    rig.doubt(9, stopped=True)
    rig.step()
    rig.recogniser.answer("no thank you")
    rig.step()
    rig.silence(9)
    rig.step()
    assert {event.text for event in judgements(rig)} == {"no thank you"}
    (told,) = patience(rig)
    assert told.silence_ms == rig.config.endpoint.complete_ms


def test_of_a_long_turn_the_last_8_s_are_judged(make):
    rig = make(judged=True)
    for _ in range(10):
        rig.speak(31)
        rig.step()
    rig.silence(305)
    rig.step()
    (asked,) = judgements(rig)
    assert asked.audio == rig.audio(305)[-64_000:]


def test_what_is_over_or_may_lapse_is_not_judged(make):
    rig = make(judged=True)
    rig.speak(9)
    rig.doubt(9)
    rig.step()
    rig.recogniser.answer("and")
    rig.step()
    rig.over(9)
    rig.step()
    assert judgements(rig) == []
    assert patience(rig) == []


def test_without_a_judge_nobody_is_asked_and_words_change_nothing(rig):
    rig.speak(9)
    rig.silence(9)
    rig.step()
    rig.recogniser.answer("a table for four and")
    rig.step()
    assert patience(rig) == []
